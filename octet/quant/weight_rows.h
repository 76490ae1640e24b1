// Rows of weights as F32, and back: the loops that all schemes share.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/quant/scheme.h"
#include "octet/tensor/dispatch.h"

namespace octet {

// Rows that one thread takes at a time: enough that a task outweighs its hand-out.
inline constexpr int64_t kRowsPerTask = 16;

inline void read_weight_row(const ConstTensor& weight, int64_t row, std::span<float> out) {
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI8>(
      weight.dtype, [&]<DType D>() {
        const auto* from = weight.row<CType<D>>(row);
        for (float& value : out) value = static_cast<float>(to_f32(*from++));
      });
}

// The codes of to_f8_e4m3, with masks instead of its branches: loops over it become vector code, which quantising while
// loading waits for.
inline F8E4M3 masked_f8_e4m3(float value) {
  const auto mask = [](bool condition) { return condition ? ~uint32_t{0} : uint32_t{0}; };
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const auto ordered = static_cast<int32_t>(magnitude);
  const uint32_t is_nan = mask(ordered > 0x7f800000);
  const uint32_t saturates = mask(ordered >= 0x43e00000);    // 448 and more
  const uint32_t is_subnormal = mask(ordered < 0x3c800000);  // below 2^-6
  // F32 addition rounds to a multiple of 2^-9.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14f) - 0x46800000u;
  const uint32_t normal = (magnitude + 0x7ffffu + ((magnitude >> 20) & 1u) - (120u << 23)) >> 20;
  const uint32_t finite = (subnormal & is_subnormal) | (normal & ~is_subnormal);
  const uint32_t code = (finite & ~saturates) | (0x7eu & saturates) | (is_nan & 1u);
  return F8E4M3{static_cast<uint8_t>(((bits >> 24) & 0x80u) | code)};
}

// Rounded to nearest even and saturated; NaN, which no integer can say, becomes 0.
inline int8_t rounded_i8(float value) {
  if (std::isnan(value)) return 0;
  return static_cast<int8_t>(std::clamp(std::nearbyint(value), -128.0f, 127.0f));
}

inline void write_weight_row(const Tensor& weight, int64_t row, std::span<const float> values) {
  if (weight.dtype == DType::kF8E4M3) {
    auto* to = weight.row<F8E4M3>(row);
    for (size_t k = 0; k < values.size(); ++k) to[k] = masked_f8_e4m3(values[k]);
    return;
  }
  if (weight.dtype == DType::kI8) {
    auto* to = weight.row<int8_t>(row);
    for (size_t k = 0; k < values.size(); ++k) to[k] = rounded_i8(values[k]);
    return;
  }
  dispatch<DType::kF32, DType::kBF16, DType::kF16>(weight.dtype, [&]<DType D>() {
    auto* to = weight.row<CType<D>>(row);
    for (const float value : values) *to++ = from_f32<CType<D>>(value);
  });
}

// The order of magnitudes is that of their bits, as integers: a maximum that becomes vector code.
inline float amax_of(std::span<const float> values) {
  int32_t amax = 0;
  for (const float value : values) {
    const auto magnitude = static_cast<int32_t>(std::bit_cast<uint32_t>(value) & 0x7fffffffu);
    const int32_t number = magnitude > 0x7f800000 ? 0 : magnitude;  // NaN does not count
    amax = number > amax ? number : amax;
  }
  return std::bit_cast<float>(amax);
}

inline float weight_scale(float amax) { return (amax > kMinWeightAmax ? amax : kMinWeightAmax) / kMaxF8E4M3; }

inline float int8_weight_scale(float amax) { return (amax > kMinWeightAmax ? amax : kMinWeightAmax) / 127.0f; }

// Calls fn(row, values) for every row of `weight`, its elements as F32; fn may change the values.
template <class Fn>
void for_each_weight_row(const ConstTensor& weight, ThreadPool& threads, Fn&& fn) {
  threads.parallel_for(weight.dim(0), kRowsPerTask, [&](int, int64_t begin, int64_t end) {
    std::vector<float> values(static_cast<size_t>(weight.dim(1)));
    for (int64_t row = begin; row < end; ++row) {
      read_weight_row(weight, row, values);
      fn(row, std::span<float>(values));
    }
  });
}

}  // namespace octet
