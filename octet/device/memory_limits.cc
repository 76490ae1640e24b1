#include "octet/device/memory_limits.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

namespace octet {
namespace {

constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();

std::optional<int64_t> parse_number(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + first, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;  // "max", or beyond 63 bits: no limit
  return value;
}

// The number after `key` at the start of a line, e.g. "MemAvailable:" or "inactive_file ".
std::optional<int64_t> number_after(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return parse_number(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

struct GroupFiles {
  std::string_view limit;
  std::string_view usage;
  std::string_view inactive_file;
  std::string_view active_file;
};

constexpr GroupFiles kVersion2{"/memory.max", "/memory.current", "inactive_file ", "active_file "};
constexpr GroupFiles kVersion1{"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file ",
                               "total_active_file "};

int64_t room_in_group(const std::string& folder, const GroupFiles& files) {
  const std::optional<int64_t> limit = number_after(folder + std::string(files.limit), "");
  const std::optional<int64_t> usage = number_after(folder + std::string(files.usage), "");
  if (!limit || !usage) return kUnbounded;
  const std::string stat = folder + "/memory.stat";
  const int64_t file_pages =
      number_after(stat, files.inactive_file).value_or(0) + number_after(stat, files.active_file).value_or(0);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *usage - file_pages));
}

// The least room of the group at `path` ("/a/b") and of those above it: each has a limit of its own.
int64_t room_up_from(const std::string& mount, std::string path, const GroupFiles& files) {
  int64_t room = kUnbounded;
  while (true) {
    while (path.ends_with('/')) path.pop_back();
    room = std::min(room, room_in_group(mount + path, files));
    if (path.empty()) return room;
    path.erase(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

int64_t read_available_memory(const std::string& root) {
  int64_t available = kUnbounded;
  if (const auto kib = number_after(root + "/proc/meminfo", "MemAvailable:"); kib && *kib < kUnbounded / 1024) {
    available = *kib * 1024;
  }
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/path", or "9:memory:/path" in version 1
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup";
    if (controllers.empty()) available = std::min(available, room_up_from(mount, path, kVersion2));
    if (controllers == "memory") available = std::min(available, room_up_from(mount + "/memory", path, kVersion1));
  }
  return available;
}

}  // namespace octet
