// A GGUF file as far as the conversion goes without writing: container, tokenizer, configuration, tensors,
// dequantisation.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/checkpoint/gguf.h"
#include "octet/checkpoint/gguf_llama.h"
#include "octet/checkpoint/gguf_tokenizer.h"

namespace {

void convert_without_writing(const octet::GgufFile& file) {
  const octet::GgufMetadata metadata(file, "fuzz");
  const octet::GgufTokenizer tokenizer = octet::tokenizer_from_gguf(metadata);
  const octet::LlamaDims dims = octet::llama_dims_from_gguf(metadata, tokenizer.num_tokens);
  octet::llama_tensors_from_gguf(file, dims, "fuzz");
  octet::llama_config_from_gguf({.file = file, .metadata = metadata, .dims = dims, .tokenizer = tokenizer});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::set_log_level(octet::LogLevel::kError);
  try {
    const octet::GgufFile file = octet::parse_gguf({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (const octet::GgufTensor& tensor : file.tensors) {
      std::vector<float> values(static_cast<size_t>(tensor.shape.num_elements()));
      octet::dequantize_gguf(tensor, values);
    }
    convert_without_writing(file);
  } catch (const octet::Error& error) {
    if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
