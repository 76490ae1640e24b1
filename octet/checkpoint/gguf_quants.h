// The block encodings of GGUF tensors: a row is a whole number of blocks, each of `block_elements` weights.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "octet/checkpoint/gguf.h"

namespace octet {

struct GgufQuant {
  GgufType type = GgufType::kF32;
  std::string_view name;
  int64_t block_elements = 1;
  int64_t block_bytes = 4;
  void (*dequantize_block)(const uint8_t* block, float* out) = nullptr;
};

// nullptr for a type that octet does not read.
const GgufQuant* find_gguf_quant(uint32_t type);
// "Q5_K", also for types that octet does not read; "type 99" for unknown ones.
std::string gguf_type_name(uint32_t type);
std::string supported_gguf_types();

}  // namespace octet
