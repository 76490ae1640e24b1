// Element types, spelled everywhere as in safetensors' lower case: f32, bf16, f16, f8_e4m3, f8_e5m2, i8, u8, i32, i64.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace octet {

enum class DType : uint8_t { kF32, kBF16, kF16, kF8E4M3, kF8E5M2, kI8, kU8, kI32, kI64, kBool };

constexpr int64_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kI64:
      return 8;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

std::string_view dtype_name(DType dtype);
// "F8_E4M3", "BF16", ... as in a safetensors header; nothing for an unknown one.
std::optional<DType> dtype_from_safetensors(std::string_view name);
std::string_view dtype_safetensors_name(DType dtype);

}  // namespace octet
