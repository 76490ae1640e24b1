#include "octet/checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/json.h"
#include "octet/checkpoint/safetensors_index.h"

namespace octet {
namespace {

int64_t bytes_of(const TensorEntry& entry) { return entry.shape.num_elements() * dtype_bytes(entry.dtype); }

// One file: its tensors in the order of their bytes.
struct Shard {
  std::string name;
  std::vector<size_t> tensors;
  std::string start;  // the header with the eight bytes of its length
  int64_t num_bytes = 0;
  int fd = -1;
};

std::string header_of(const std::vector<TensorEntry>& entries, const std::vector<size_t>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  // Built as text: Json objects find a key by walking over all of them.
  std::string text = "{";
  const auto quoted = [](const std::string& part) {
    return Json(part).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata)
      text += fmt::format("{}{}:{}", text.back() == '{' ? "" : ",", quoted(key), quoted(value));
    text += "}";
  }
  int64_t offset = 0;
  for (const size_t i : tensors) {
    const TensorEntry& entry = entries[i];
    const int64_t end = offset + bytes_of(entry);
    std::string shape;
    for (int d = 0; d < entry.shape.rank(); ++d) shape += fmt::format("{}{}", d ? "," : "", entry.shape[d]);
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                        quoted(entry.name), dtype_safetensors_name(entry.dtype), shape, offset, end);
    offset = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the first tensor is aligned
  std::string start(8, '\0');
  for (size_t i = 0; i < 8; ++i) start[i] = static_cast<char>(static_cast<uint64_t>(text.size()) >> (8 * i));
  return start + text;
}

std::vector<Shard> plan_shards(const std::vector<TensorEntry>& entries, const SafetensorsLayout& layout) {
  std::vector<Shard> shards(1);
  int64_t data_bytes = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    const int64_t bytes = bytes_of(entries[i]);
    if (!shards.back().tensors.empty() && data_bytes + bytes > layout.max_shard_bytes) {
      shards.emplace_back();
      data_bytes = 0;
    }
    shards.back().tensors.push_back(i);
    shards.back().num_bytes += bytes;
    data_bytes += bytes;
  }
  for (size_t s = 0; s < shards.size(); ++s) {
    Shard& shard = shards[s];
    shard.name = shards.size() == 1 ? "model.safetensors"
                                    : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    shard.start = header_of(entries, shard.tensors, layout.metadata);
    shard.num_bytes += static_cast<int64_t>(shard.start.size());
  }
  return shards;
}

[[noreturn]] void fail_write(const std::string& path) {
  if (errno == ENOSPC || errno == EDQUOT) fail(ErrorCode::kIo, "{}: cannot write: the disk is full", path);
  fail(ErrorCode::kIo, "{}: cannot write: {}", path, std::strerror(errno));
}

void write_at(int fd, const std::string& path, const char* bytes, size_t size, int64_t offset) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = ::pwrite(fd, bytes + done, size - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_write(path);
    done += static_cast<size_t>(n);
  }
}

}  // namespace

struct SafetensorsWriter::State {
  struct Place {
    size_t shard = 0;
    int64_t offset = 0;  // in its file
    int64_t num_bytes = 0;
    int64_t num_written = 0;
  };

  std::string folder;
  std::vector<TensorEntry> entries;
  std::vector<Shard> shards;
  std::map<std::string, Place, std::less<>> places;

  std::string path(const Shard& shard) const { return (std::filesystem::path(folder) / shard.name).string(); }

  Place& place(std::string_view tensor) {
    const auto it = places.find(tensor);
    if (it == places.end()) fail(ErrorCode::kInternal, "{}: no tensor {} was announced", folder, tensor);
    return it->second;
  }

  void place_tensors() {
    for (size_t s = 0; s < shards.size(); ++s) {
      auto offset = static_cast<int64_t>(shards[s].start.size());
      for (const size_t i : shards[s].tensors) {
        const int64_t bytes = bytes_of(entries[i]);
        const Place at{.shard = s, .offset = offset, .num_bytes = bytes};
        if (!places.emplace(entries[i].name, at).second || entries[i].name == "__metadata__")
          fail(ErrorCode::kInternal, "{}: tensor {} cannot be written twice", folder, entries[i].name);
        offset += bytes;
      }
    }
  }

  void open(Shard& shard, Begin begin) {
    const std::string file = path(shard);
    shard.fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (begin == Begin::kAfresh ? O_TRUNC : 0), 0666);
    if (shard.fd < 0) fail(ErrorCode::kIo, "{}: cannot create: {}", file, std::strerror(errno));
    struct stat status {};
    if (::fstat(shard.fd, &status) != 0) fail_write(file);
    if (status.st_size == shard.num_bytes && begin == Begin::kContinue) return check_start(shard, file);
    // Where the file system cannot set bytes aside, the file grows as it is written.
    if (::fallocate(shard.fd, 0, 0, shard.num_bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) fail_write(file);
    if (::ftruncate(shard.fd, shard.num_bytes) != 0) fail_write(file);
    write_at(shard.fd, file, shard.start.data(), shard.start.size(), 0);
  }

  void write_index() const {
    if (shards.size() == 1) return;
    int64_t total = 0;
    std::string map;
    for (const Shard& shard : shards) {
      for (const size_t i : shard.tensors) {
        const TensorEntry& entry = entries[i];
        total += bytes_of(entry);
        map += fmt::format("{}\n    {}: \"{}\"", map.empty() ? "" : ",", Json(entry.name).dump(), shard.name);
      }
    }
    write_file(
        (std::filesystem::path(folder) / kSafetensorsIndexName).string(),
        fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{{}\n  }}\n}}\n", total, map));
  }

  void check_start(const Shard& shard, const std::string& file) const {
    std::string found(shard.start.size(), '\0');
    if (::pread(shard.fd, found.data(), found.size(), 0) != static_cast<ssize_t>(found.size()) || found != shard.start)
      fail(ErrorCode::kIo, "{}: is not the file that was begun: its header is another; remove it", file);
  }
};

SafetensorsWriter::SafetensorsWriter(std::string folder, std::vector<TensorEntry> entries,
                                     const SafetensorsLayout& layout, Begin begin)
    : state_(std::make_unique<State>()) {
  state_->folder = std::move(folder);
  state_->entries = std::move(entries);
  state_->shards = plan_shards(state_->entries, layout);
  state_->place_tensors();
  for (Shard& shard : state_->shards) state_->open(shard, begin);
  state_->write_index();
}

SafetensorsWriter::~SafetensorsWriter() {
  for (const Shard& shard : state_->shards) {
    if (shard.fd >= 0) ::close(shard.fd);
  }
}

void SafetensorsWriter::write(std::string_view tensor, std::span<const std::byte> bytes, int64_t at) {
  State::Place& place = state_->place(tensor);
  const auto size = static_cast<int64_t>(bytes.size());
  if (at < 0 || at + size > place.num_bytes || place.num_written + size > place.num_bytes) {
    fail(ErrorCode::kInternal, "{}: {} bytes at {} of tensor {}, which has {}", state_->folder, size, at, tensor,
         place.num_bytes);
  }
  const Shard& shard = state_->shards[place.shard];
  write_at(shard.fd, state_->path(shard), reinterpret_cast<const char*>(bytes.data()), bytes.size(), place.offset + at);
  place.num_written += size;
}

void SafetensorsWriter::keep(std::string_view tensor) {
  State::Place& place = state_->place(tensor);
  place.num_written = place.num_bytes;
}

void SafetensorsWriter::sync() {
  for (const Shard& shard : state_->shards) {
    if (::fdatasync(shard.fd) != 0) fail_write(state_->path(shard));
  }
}

void SafetensorsWriter::finish() {
  for (const auto& [name, place] : state_->places) {
    if (place.num_written != place.num_bytes) {
      fail(ErrorCode::kInternal, "{}: {} of {} bytes of tensor {} were written", state_->folder, place.num_written,
           place.num_bytes, name);
    }
  }
  sync();
}

int64_t SafetensorsWriter::num_bytes() const {
  int64_t total = 0;
  for (const Shard& shard : state_->shards) total += shard.num_bytes;
  return total;
}

int64_t safetensors_bytes(const std::vector<TensorEntry>& entries, const SafetensorsLayout& layout) {
  int64_t total = 0;
  for (const Shard& shard : plan_shards(entries, layout)) total += shard.num_bytes;
  return total;
}

}  // namespace octet
