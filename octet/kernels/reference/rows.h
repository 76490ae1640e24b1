// What all reference kernels do with rows: read them as F32 (exact for every dtype) and write them in an op's output
// format.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "octet/ops/op.h"
#include "octet/tensor/quant_format.h"

namespace octet {

// `count` elements from element `offset` of the tensor's memory on.
void read_elements(const ConstTensor& tensor, int64_t offset, int64_t count, float* out);
// Rounds to the tensor's dtype, to nearest even, saturating for 8 bits.
void write_elements(const Tensor& tensor, int64_t offset, std::span<const float> values);

// Row t of a matrix.
std::vector<float> read_row(const ConstTensor& matrix, int64_t t);
inline void write_row(const Tensor& matrix, int64_t t, std::span<const float> values) {
  write_elements(matrix, t * matrix.row_stride, values);
}

// Row t of an activation in its format: plain or in 8 bits, by the rules of ops/quantize.h.
void write_activation_row(const QuantTensor& out, int64_t t, std::span<const float> values);
// Why that function cannot write this format; empty = it can.
std::string declines_activation(const QuantFormat& format);

// Calls fn(i) for every i in [0, count), on the launch's threads if it has any.
template <class Fn>
void for_each(const Launch& launch, int64_t count, Fn&& fn) {
  if (launch.threads == nullptr) {
    for (int64_t i = 0; i < count; ++i) fn(i);
    return;
  }
  launch.threads->parallel_for(count, 8, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fn(i);
  });
}

}  // namespace octet
