#include "octet/quantizer/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "octet/base/error.h"
#include "octet/base/file.h"

namespace octet {
namespace {

constexpr int64_t kMaxJournalBytes = int64_t{1} << 30;

void check_same_task(const Json& before, const Json& now, const std::string& path) {
  for (const auto& [key, value] : now.items()) {
    const auto it = before.find(key);
    const Json found = it == before.end() ? Json() : *it;
    if (found == value) continue;
    fail(ErrorCode::kUsage, "{}: the interrupted run had {} {}, this one {}; resume it as it was, or remove the folder",
         std::filesystem::path(path).parent_path().string(), key, found.dump(), value.dump());
  }
}

}  // namespace

Journal::Journal(std::string path, const Json& task, bool resumed) : path_(std::move(path)) {
  const bool exists = resumed && std::filesystem::exists(path_);
  if (exists) read(task);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(ErrorCode::kIo, "{}: cannot create: {}", path_, std::strerror(errno));
  if (!exists) append(Json{{"task", task}}.dump() + "\n");
}

Journal::~Journal() {
  if (fd_ >= 0) ::close(fd_);
}

void Journal::read(const Json& task) {
  const std::string text = read_file(path_, kMaxJournalBytes);
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const Json json = parse_json(std::string_view(text).substr(begin, end - begin), path_);
    const JsonObject line(json, path_);
    const Json* facts = line.find_raw(begin == 0 ? "task" : "facts");
    if (facts == nullptr || (begin == 0 && !facts->is_object())) {
      fail(ErrorCode::kInvalid, "{}: a line without \"{}\"", path_, begin == 0 ? "task" : "facts");
    }
    if (begin == 0) {
      check_same_task(*facts, task, path_);
    } else {
      done_.emplace(line.get_string("unit"), *facts);
    }
  }
  // What was cut short goes, so that the next line begins on a line of its own. A task that was: nothing is done yet.
  std::error_code error;
  std::filesystem::resize_file(path_, begin, error);
  if (error) fail(ErrorCode::kIo, "{}: cannot write: {}", path_, error.message());
  if (begin == 0) write_file(path_, Json{{"task", task}}.dump() + "\n");
}

const Json* Journal::find(std::string_view unit) const {
  const auto it = done_.find(unit);
  return it == done_.end() ? nullptr : &it->second;
}

void Journal::record(std::span<const Entry> entries) {
  std::string lines;
  for (const Entry& entry : entries) lines += Json{{"unit", entry.unit}, {"facts", entry.facts}}.dump() + "\n";
  append(lines);
  for (const Entry& entry : entries) done_.emplace(entry.unit, entry.facts);
}

void Journal::append(const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorCode::kIo, "{}: cannot write: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(n);
  }
  if (::fdatasync(fd_) != 0) fail(ErrorCode::kIo, "{}: cannot write: {}", path_, std::strerror(errno));
}

void Journal::remove() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace octet
