#include "octet/tensor/dtype.h"

namespace octet {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  std::string_view safetensors_name;
};

constexpr Row kRows[] = {
    {DType::kF32, "f32", "F32"},
    {DType::kBF16, "bf16", "BF16"},
    {DType::kF16, "f16", "F16"},
    {DType::kF8E4M3, "f8_e4m3", "F8_E4M3"},
    {DType::kF8E5M2, "f8_e5m2", "F8_E5M2"},
    {DType::kI8, "i8", "I8"},
    {DType::kU8, "u8", "U8"},
    {DType::kI32, "i32", "I32"},
    {DType::kI64, "i64", "I64"},
    {DType::kBool, "bool", "BOOL"},
};

}  // namespace

std::string_view dtype_name(DType dtype) {
  for (const Row& row : kRows) {
    if (row.dtype == dtype) return row.name;
  }
  return "unknown";
}

std::string_view dtype_safetensors_name(DType dtype) {
  for (const Row& row : kRows) {
    if (row.dtype == dtype) return row.safetensors_name;
  }
  return "unknown";
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.safetensors_name == name) return row.dtype;
  }
  if (name == "F8_E8M0") return DType::kU8;  // exponents of scales: quant/scheme.h
  return std::nullopt;
}

}  // namespace octet
