// safetensors (huggingface/safetensors format description): an 8-byte little-endian header length, a JSON header, the
// data. Reading maps the files and copies nothing; every bound is checked before a byte of data is touched.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/file.h"
#include "octet/tensor/tensor.h"

namespace octet {

// One file. The header checks of `parse_safetensors_header` are those of the fuzzer.
struct SafetensorsEntry {
  TensorEntry entry;
  int64_t begin = 0;  // byte offsets in the data part
  int64_t end = 0;
};
struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // by offset
  std::map<std::string, std::string> metadata;
  int64_t data_offset = 0;  // from the start of the file
};
// `file_bytes`: at least the header; `file_size`: of the whole file. Throws Error{kModel} naming file and tensor;
// Error{kUnsupported} for an element type that octet does not know and for more than four dimensions.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file_bytes, int64_t file_size,
                                           std::string_view path);

// All tensors of a checkpoint folder: model.safetensors, or the shards that model.safetensors.index.json names, or a
// single other *.safetensors file. Missing shards are listed; a tensor in two shards, or in the index but not in its
// shard, is an error.
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::string& folder);

  const std::map<std::string, TensorEntry, std::less<>>& entries() const { return entries_; }
  const TensorEntry* find(std::string_view name) const;
  // The mapped bytes; valid while this object lives. The alignment is whatever the file has (maybe odd).
  ConstTensor tensor(std::string_view name) const;
  // Lets the operating system drop the pages of a tensor that has been copied out.
  void drop_pages(std::string_view name) const;
  std::string file_of(std::string_view name) const;
  int64_t num_bytes() const;

 private:
  struct Place {
    size_t file = 0;
    int64_t begin = 0;
  };
  std::vector<MappedFile> files_;
  std::map<std::string, TensorEntry, std::less<>> entries_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace octet
