// How one stored matrix is quantised, as a value, and the matrix itself. One contract everywhere: real = q * scale, or
// (q - zero_point) * scale, with scales in F32 and zero points in I32.
#pragma once

#include <cstdint>
#include <string>

#include "octet/tensor/tensor.h"

namespace octet {

enum class Granularity : uint8_t {
  kNone,     // not quantised: no scale
  kTensor,   // one scale
  kChannel,  // weights [N, K]: one scale per row (output channel)
  kToken,    // activations [T, K]: one scale per row (token)
  kGroup,    // one scale per `group_cols` consecutive columns of a row
  kBlock,    // weights: one scale per group_rows x group_cols block
};

struct QuantFormat {
  DType dtype = DType::kF32;
  Granularity granularity = Granularity::kNone;
  bool dynamic = false;  // activations: the scale is computed from the values at run time
  int32_t group_rows = 0;
  int32_t group_cols = 0;
  bool zero_point = false;    // activations in i8: has zero points, one per scale
  bool power_of_two = false;  // dynamic: scales are rounded up to powers of two (scale_fmt "ue8m0")
  float amax_cap = 0.0f;      // dynamic: magnitudes above it do not raise the scale (FBGEMM's bound); 0: none

  bool quantized() const { return granularity != Granularity::kNone; }
  bool operator==(const QuantFormat&) const = default;
  // The shape of the scale of a [rows, cols] matrix; [] (one element, rank 0 -> [1]) for kTensor.
  Shape scale_shape(int64_t rows, int64_t cols) const;
  // That of a stack [count, rows, cols], each matrix with scales of its own: [count, ...].
  Shape stack_scale_shape(int64_t count, int64_t rows, int64_t cols) const;
  std::string to_string() const;  // "f8_e4m3 per channel", "bf16"
};

// Formats in use now.
inline constexpr QuantFormat plain_format(DType dtype) { return QuantFormat{.dtype = dtype}; }
inline constexpr QuantFormat kF8Tensor{.dtype = DType::kF8E4M3, .granularity = Granularity::kTensor};
inline constexpr QuantFormat kF8Channel{.dtype = DType::kF8E4M3, .granularity = Granularity::kChannel};
inline constexpr QuantFormat kF8DynamicToken{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kToken, .dynamic = true};
inline constexpr QuantFormat kF8StaticTensor{.dtype = DType::kF8E4M3, .granularity = Granularity::kTensor};
// DeepSeek's: weights in squares of 128, activations by 128 channels of a token.
inline constexpr QuantFormat kF8Block{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kBlock, .group_rows = 128, .group_cols = 128};
inline constexpr QuantFormat kF8DynamicGroup{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kGroup, .dynamic = true, .group_cols = 128};
inline constexpr QuantFormat kI8Channel{.dtype = DType::kI8, .granularity = Granularity::kChannel};
inline constexpr QuantFormat kI8DynamicToken{.dtype = DType::kI8, .granularity = Granularity::kToken, .dynamic = true};
inline constexpr QuantFormat kI8StaticTensor{.dtype = DType::kI8, .granularity = Granularity::kTensor};

// data [rows, cols], scale (empty for kNone) and zero_point (i32 of scale's shape; empty unless format.zero_point) as
// views. Or a stack of matrices, data [E, rows, cols], each with a scale of its own, [E, ...].
template <class Bytes>
struct BasicQuantTensor {
  BasicTensor<Bytes> data;
  BasicTensor<Bytes> scale;
  QuantFormat format;
  BasicTensor<Bytes> zero_point;

  BasicQuantTensor() = default;
  BasicQuantTensor(BasicTensor<Bytes> data_, BasicTensor<Bytes> scale_, QuantFormat format_)
      : data(data_), scale(scale_), format(format_) {}
  // An unquantised matrix.
  explicit BasicQuantTensor(BasicTensor<Bytes> plain) : data(plain), format(plain_format(plain.dtype)) {}
  template <class Other>
  requires(std::is_const_v<Bytes> && !std::is_const_v<Other>)
      BasicQuantTensor(const BasicQuantTensor<Other>& other)  // NOLINT
      : data(other.data), scale(other.scale), format(other.format), zero_point(other.zero_point) {}

  // Matrix i of a stack.
  BasicQuantTensor matrix(int64_t i) const {
    return BasicQuantTensor(data.slice(i), format.quantized() ? scale.slice(i) : scale, format);
  }
  int64_t num_bytes() const { return data.num_bytes() + (scale.empty() ? 0 : scale.num_bytes()); }
};

using QuantTensor = BasicQuantTensor<std::byte>;
using ConstQuantTensor = BasicQuantTensor<const std::byte>;

}  // namespace octet
