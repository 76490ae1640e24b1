#include "octet/checkpoint/safetensors.h"

#include <algorithm>
#include <filesystem>

#include "octet/base/error.h"
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

}  // namespace octet
