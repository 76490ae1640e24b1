#include "octet/checkpoint/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "octet/base/error.h"
#include "octet/base/json.h"
#include "octet/checkpoint/safetensors_index.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

// *.safetensors files that no loader may take for the model's: Mistral's and Meta's own layouts of the same weights.
bool is_foreign(std::string_view name) { return name.starts_with("consolidated") || name.starts_with("."); }

bool is_pickle(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".pkl" ||
         extension == ".ckpt";
}

[[noreturn]] void fail_without_weights(const std::string& folder, const std::vector<std::string>& pickles) {
  if (pickles.empty())
    fail(ErrorCode::kModel, "{}: no model.safetensors, model.safetensors.index.json or other *.safetensors file",
         folder);
  fail(ErrorCode::kModel,
       "{}: no *.safetensors file; {} may be a pickle, which can run code and is never read: convert the model to "
       "safetensors",
       folder, fmt::join(pickles, ", "));
}

std::string only_safetensors_file(const std::string& folder) {
  std::vector<std::string> found;
  std::vector<std::string> pickles;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (it->path().extension() == ".safetensors" && !is_foreign(name)) found.push_back(name);
    if (is_pickle(it->path())) pickles.push_back(name);
  }
  if (error) fail(ErrorCode::kIo, "{}: cannot list the folder: {}", folder, error.message());
  std::sort(found.begin(), found.end());
  std::sort(pickles.begin(), pickles.end());
  if (found.empty()) fail_without_weights(folder, pickles);
  if (found.size() > 1) {
    fail(ErrorCode::kModel,
         "{}: {} *.safetensors files ({}) but no model.safetensors.index.json that says which belong to the model",
         folder, found.size(), fmt::join(found, ", "));
  }
  return found.front();
}

}  // namespace

SafetensorsFolder::SafetensorsFolder(const std::string& folder) {
  if (!fs::is_directory(folder)) fail(ErrorCode::kModel, "{}: not a folder", folder);
  const fs::path root(folder);
  const std::string index_path = (root / kSafetensorsIndexName).string();
  std::vector<std::string> names;
  SafetensorsIndex index;
  if (fs::exists(root / "model.safetensors")) {
    names = {"model.safetensors"};
  } else if (fs::exists(index_path)) {
    index = read_safetensors_index(index_path);
    names = index.shards();
    const std::vector<std::string> missing = missing_files(folder, names);
    if (!missing.empty())
      fail(ErrorCode::kModel, "{}: {} of {} shards are missing: {}", folder, missing.size(), names.size(),
           fmt::join(missing, ", "));
  } else {
    names = {only_safetensors_file(folder)};
  }

  for (const std::string& name : names) {
    files_.emplace_back((root / name).string());
    const MappedFile& file = files_.back();
    SafetensorsHeader header =
        parse_safetensors_header(file.bytes(), static_cast<int64_t>(file.bytes().size()), file.path());
    for (SafetensorsEntry& tensor : header.entries) {
      const Place place{.file = files_.size() - 1, .begin = header.data_offset + tensor.begin};
      const auto [it, inserted] = places_.emplace(tensor.entry.name, place);
      if (!inserted)
        fail(ErrorCode::kModel, "{}: {} is in {} as well", file.path(), tensor.entry.name,
             files_[it->second.file].path());
      std::string key = tensor.entry.name;
      entries_.emplace(std::move(key), std::move(tensor.entry));
    }
  }
  for (const auto& [tensor, shard] : index.weight_map) {
    const auto it = places_.find(tensor);
    if (it == places_.end() || names[it->second.file] != shard) {
      fail(ErrorCode::kModel, "{}: {} should be in {}, which does not hold it", index_path, tensor, shard);
    }
  }
}

const TensorEntry* SafetensorsFolder::find(std::string_view name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

ConstTensor SafetensorsFolder::tensor(std::string_view name) const {
  const TensorEntry* entry = find(name);
  if (!entry)
    fail(ErrorCode::kModel, "{}: no tensor {}", files_.empty() ? "" : fs::path(files_[0].path()).parent_path().string(),
         name);
  const Place& place = places_.find(name)->second;
  return ConstTensor(files_[place.file].bytes().data() + place.begin, entry->dtype, entry->shape);
}

void SafetensorsFolder::drop_pages(std::string_view name) const {
  const ConstTensor view = tensor(name);
  files_[places_.find(name)->second.file].drop_pages({view.bytes, static_cast<size_t>(view.num_bytes())});
}

std::string SafetensorsFolder::file_of(std::string_view name) const {
  const auto it = places_.find(name);
  return it == places_.end() ? std::string() : files_[it->second.file].path();
}

int64_t SafetensorsFolder::num_bytes() const {
  int64_t total = 0;
  for (const auto& [name, entry] : entries_) total += entry.shape.num_elements() * dtype_bytes(entry.dtype);
  return total;
}

struct SafetensorsWriter::State {
  std::string path;
  std::string partial;
  std::vector<TensorEntry> entries;
  size_t current = 0;         // the tensor being written
  int64_t current_bytes = 0;  // written of it
  int fd = -1;

  int64_t bytes_of(size_t i) const { return entries[i].shape.num_elements() * dtype_bytes(entries[i].dtype); }

  void write_all(const char* bytes, size_t size) {
    for (size_t done = 0; done < size;) {
      const ssize_t n = ::write(fd, bytes + done, size - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(ErrorCode::kIo, "{}: cannot write: {}", partial, std::strerror(errno));
      done += static_cast<size_t>(n);
    }
  }
};

namespace {

std::string header_text(const std::vector<TensorEntry>& entries, const std::map<std::string, std::string>& metadata) {
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
  for (const TensorEntry& entry : entries) {
    const int64_t end = offset + entry.shape.num_elements() * dtype_bytes(entry.dtype);
    std::string shape;
    for (int i = 0; i < entry.shape.rank(); ++i) shape += fmt::format("{}{}", i ? "," : "", entry.shape[i]);
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                        quoted(entry.name), dtype_safetensors_name(entry.dtype), shape, offset, end);
    offset = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the first tensor is aligned
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path, std::vector<TensorEntry> entries,
                                     std::map<std::string, std::string> metadata)
    : state_(std::make_unique<State>()) {
  std::set<std::string_view> names;
  for (const TensorEntry& entry : entries) {
    if (!names.insert(entry.name).second || entry.name == "__metadata__") {
      fail(ErrorCode::kInternal, "{}: tensor {} cannot be written twice", path, entry.name);
    }
  }
  state_->partial = path + ".partial";
  state_->path = std::move(path);
  state_->entries = std::move(entries);
  state_->fd = ::open(state_->partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (state_->fd < 0) fail(ErrorCode::kIo, "{}: cannot create: {}", state_->partial, std::strerror(errno));
  const std::string header = header_text(state_->entries, metadata);
  char prefix[8];
  for (size_t i = 0; i < 8; ++i) prefix[i] = static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  state_->write_all(prefix, sizeof(prefix));
  state_->write_all(header.data(), header.size());
}

SafetensorsWriter::~SafetensorsWriter() {
  if (state_->fd < 0) return;
  ::close(state_->fd);
  ::unlink(state_->partial.c_str());
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  State& state = *state_;
  if (state.current < state.entries.size() &&
      (state.current_bytes != 0 || static_cast<int64_t>(bytes.size()) != state.bytes_of(state.current))) {
    fail(ErrorCode::kInternal, "{}: {} bytes for tensor {}, which has {}", state.path, bytes.size(),
         state.entries[state.current].name, state.bytes_of(state.current));
  }
  write_piece(bytes);
}

void SafetensorsWriter::write_piece(std::span<const std::byte> bytes) {
  State& state = *state_;
  if (state.current >= state.entries.size()) fail(ErrorCode::kInternal, "{}: bytes beyond the last tensor", state.path);
  const int64_t size = state.bytes_of(state.current);
  if (static_cast<int64_t>(bytes.size()) > size - state.current_bytes) {
    fail(ErrorCode::kInternal, "{}: more than the {} bytes of tensor {}", state.path, size,
         state.entries[state.current].name);
  }
  state.write_all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  state.current_bytes += static_cast<int64_t>(bytes.size());
  if (state.current_bytes < size) return;
  ++state.current;
  state.current_bytes = 0;
}

void SafetensorsWriter::finish() {
  State& state = *state_;
  OCTET_CHECK(state.fd >= 0);
  if (state.current != state.entries.size())
    fail(ErrorCode::kInternal, "{}: tensor {} was not written", state.path, state.entries[state.current].name);
  const bool synced = ::fsync(state.fd) == 0;
  const bool closed = ::close(state.fd) == 0;
  state.fd = -1;
  if (!synced || !closed || ::rename(state.partial.c_str(), state.path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    ::unlink(state.partial.c_str());
    fail(ErrorCode::kIo, "{}: cannot write: {}", state.path, reason);
  }
}

}  // namespace octet
