// SafetensorsWriter: the tensors of a checkpoint into a folder: model.safetensors, or shards of bounded size with
// model.safetensors.index.json. Where every byte goes is known before the first is written, so tensors may come in any
// order and in pieces, and a writer that was killed can be continued.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet {

struct SafetensorsLayout {
  std::map<std::string, std::string> metadata = {{"format", "pt"}};  // of each file
  // Tensors keep their order; a shard is closed before it grows beyond this. A larger tensor has a shard of its own.
  int64_t max_shard_bytes = int64_t{4} << 30;
};

class SafetensorsWriter {
 public:
  // kContinue: files that are there already are kept; their headers must be those that would be written.
  enum class Begin : uint8_t { kAfresh, kContinue };
  // Creates the files, with their headers, at their full size, and the index: a full disk is found here where the file
  // system can tell, and SafetensorsFolder can read what is written so far. Throws Error{kIo}.
  SafetensorsWriter(std::string folder, std::vector<TensorEntry> entries, const SafetensorsLayout& layout = {},
                    Begin begin = Begin::kAfresh);
  ~SafetensorsWriter();  // closes the files
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Bytes of a tensor from its byte `at` on; each byte once.
  void write(std::string_view tensor, std::span<const std::byte> bytes, int64_t at = 0);
  // A tensor that an earlier writer of this folder has written and synced.
  void keep(std::string_view tensor);
  // What has been written is on the disk when this returns.
  void sync();
  // Syncs. An error when bytes are missing.
  void finish();

  // Of all files, without the index.
  int64_t num_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What a writer of these tensors would take on the disk.
int64_t safetensors_bytes(const std::vector<TensorEntry>& entries, const SafetensorsLayout& layout = {});

}  // namespace octet
