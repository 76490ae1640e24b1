// Rows of weights as F32, and back: the loops that all schemes share.
#pragma once

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

inline void write_weight_row(const Tensor& weight, int64_t row, std::span<const float> values) {
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3>(weight.dtype, [&]<DType D>() {
    auto* to = weight.row<CType<D>>(row);
    for (const float value : values) *to++ = from_f32<CType<D>>(value);
  });
}

inline float amax_of(std::span<const float> values) {
  float amax = 0.0f;
  for (const float value : values) {
    const float magnitude = std::fabs(value);
    amax = magnitude > amax ? magnitude : amax;  // false for NaN
  }
  return amax;
}

inline float weight_scale(float amax) { return (amax > kMinWeightAmax ? amax : kMinWeightAmax) / kMaxF8E4M3; }

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
