// GGUF (llama.cpp's file format, versions 2 and 3, little endian): reading, for import only.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "octet/base/file.h"
#include "octet/tensor/tensor.h"

namespace octet {

// Tensor encodings that octet can read; the numbers are GGUF's.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ6_K = 14,
  kBF16 = 30
};

using GgufArray = std::variant<std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;
using GgufValue = std::variant<int64_t, double, bool, std::string, GgufArray>;

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  Shape shape;  // row-major, as octet writes shapes: reversed GGUF dims
  std::span<const std::byte> bytes;
};

struct GgufFile {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;
};

// Views into `bytes`. Every bound is checked (spec in llama.cpp's docs/gguf); throws Error{kModel} naming path and
// field.
GgufFile parse_gguf(std::span<const std::byte> bytes, std::string_view path);

// Exactly ggml's dequantisation, to F32 [num_elements].
void dequantize_gguf(const GgufTensor& tensor, std::span<float> out);

// Converts a GGUF file of architecture "llama" to a Hugging Face folder that transformers and octet load: config.json,
// model.safetensors, tokenizer.json, tokenizer_config.json with the chat template, generation_config.json. Undoes
// llama.cpp's permutation of q and k rows. The folder is written as "<out_folder>.partial" and renamed when it is
// whole; an existing folder is replaced only when it is empty or an earlier conversion (it holds kConversionMark).
// Throws Error{kUnsupported} naming another architecture, an encoding or a tensor that the conversion does not know.
inline constexpr std::string_view kConversionMark = "octet_conversion.json";

struct GgufConversion {
  std::string gguf_path;
  std::string out_folder;
  DType dtype = DType::kBF16;  // of all tensors: kBF16, kF16 or kF32 (exact)
};
struct GgufConversionReport {
  int64_t num_tensors = 0;
  int64_t num_bytes = 0;
};
GgufConversionReport convert_gguf(const GgufConversion& conversion);

}  // namespace octet
