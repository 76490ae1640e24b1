// What the kernels share that give each row of a matrix to one CTA: the row's elements lie in the registers of its
// threads, are reduced over the CTA, and leave in an op's output format by the rules of octet/ops/quantize.h.
//
// Thread i holds vectors i, i + threads, ... of the row: kVectors vectors of kVector elements. kVector is 8, in
// accesses of 16 bytes, where every row starts and ends on such a boundary, and 1 elsewhere. How a row is cut depends
// on its length and alignment only, never on the number of rows: neither do its bits.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>

#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/ops/quantize.h"

namespace octet {

inline constexpr int kRowThreads = 512;  // at most
inline constexpr int64_t kMaxAlignedColumns = 8 * 8 * kRowThreads;
inline constexpr int64_t kMaxColumns = 32 * kRowThreads;

struct RowShape {
  int vector = 1;   // elements of a vector
  int vectors = 0;  // vectors of a thread
  int threads = 0;
};

// Whether rows of `columns` elements of all tensors can be read and written in vectors of 8.
inline bool has_aligned_rows(int64_t columns, std::initializer_list<ConstTensor> tensors) {
  return columns % 8 == 0 && std::all_of(tensors.begin(), tensors.end(), [](const ConstTensor& tensor) {
           const int64_t access = std::min<int64_t>(16, 8 * dtype_bytes(tensor.dtype));
           return tensor.empty() || (reinterpret_cast<uintptr_t>(tensor.bytes) % static_cast<uintptr_t>(access) == 0 &&
                                     tensor.row_stride * dtype_bytes(tensor.dtype) % access == 0);
         });
}

// How rows of `columns` elements of all tensors are cut; vectors is 0 when they do not fit into a CTA's registers.
inline RowShape row_shape(int64_t columns, std::initializer_list<ConstTensor> tensors) {
  const bool aligned = has_aligned_rows(columns, tensors);
  if (columns > (aligned ? kMaxAlignedColumns : kMaxColumns)) return {};
  const auto count = static_cast<int>(aligned ? columns / 8 : columns);
  RowShape shape{.vector = aligned ? 8 : 1, .vectors = aligned ? 1 : 8};
  while (shape.vectors * kRowThreads < count) shape.vectors *= aligned ? 2 : 4;
  const int threads = (count + shape.vectors - 1) / shape.vectors;
  shape.threads = std::max(32, (threads + 31) / 32 * 32);
  return shape;
}

inline std::string declines_shape(const RowShape& shape) {
  if (shape.vectors > 0) return "";
  return fmt::format("takes rows of at most {} columns, {} where they are not aligned to 16 bytes", kMaxAlignedColumns,
                     kMaxColumns);
}

enum class RowFormat { kF32, kBF16, kDynamicToken, kGivenToken, kStaticTensor };

struct RowOutput {
  void* data;
  float* scale;  // read or written, as the format says
  int64_t stride;
  RowFormat format;
};

// What a kernel is compiled for: BF16 activations to the formats of nearly every launch, a quarter of a microsecond
// faster, or any formats, asked for at run time.
enum class RowKind { kAny, kToBF16, kToDynamicToken, kToStaticTensor };

inline RowKind row_kind(bool all_bf16, const RowShape& shape, RowFormat out) {
  if (!all_bf16 || shape.vector == 1) return RowKind::kAny;
  switch (out) {
    case RowFormat::kBF16:
      return RowKind::kToBF16;
    case RowFormat::kDynamicToken:
      return RowKind::kToDynamicToken;
    case RowFormat::kStaticTensor:
      return RowKind::kToStaticTensor;
    default:
      return RowKind::kAny;
  }
}

// The format of `out`, as a constant where the kernel is compiled for it.
template <RowKind kKind>
__device__ inline RowFormat format_of(const RowOutput& out) {
  if constexpr (kKind == RowKind::kToBF16) return RowFormat::kBF16;
  if constexpr (kKind == RowKind::kToDynamicToken) return RowFormat::kDynamicToken;
  if constexpr (kKind == RowKind::kToStaticTensor) return RowFormat::kStaticTensor;
  return out.format;
}

template <RowKind kKind, class Fn>
void dispatch_vectors(const RowShape& shape, Fn&& fn) {
  const auto is = [&](int vector, int vectors) { return shape.vector == vector && shape.vectors == vectors; };
  if (is(8, 1)) return fn.template operator()<kKind, 8, 1>();
  if (is(8, 2)) return fn.template operator()<kKind, 8, 2>();
  if (is(8, 4)) return fn.template operator()<kKind, 8, 4>();
  if (is(8, 8)) return fn.template operator()<kKind, 8, 8>();
  if constexpr (kKind == RowKind::kAny) {
    if (is(1, 8)) return fn.template operator()<kKind, 1, 8>();
    if (is(1, 32)) return fn.template operator()<kKind, 1, 32>();
  }
  fail(ErrorCode::kInternal, "no row of {} vectors of {}", shape.vectors, shape.vector);
}

// Calls fn.operator()<kKind, kVector, kVectors>().
template <class Fn>
void dispatch_row(RowKind kind, const RowShape& shape, Fn&& fn) {
  if (kind == RowKind::kToBF16) return dispatch_vectors<RowKind::kToBF16>(shape, fn);
  if (kind == RowKind::kToDynamicToken) return dispatch_vectors<RowKind::kToDynamicToken>(shape, fn);
  if (kind == RowKind::kToStaticTensor) return dispatch_vectors<RowKind::kToStaticTensor>(shape, fn);
  dispatch_vectors<RowKind::kAny>(shape, fn);
}

// An activation in memory.
struct RowInput {
  const void* data = nullptr;  // null: none
  int64_t stride = 0;
  bool f32 = false;
};
inline RowInput row_input(const ConstTensor& x) {
  return {.data = x.bytes, .stride = x.row_stride, .f32 = x.dtype == DType::kF32};
}

template <int kVector>
__device__ inline void load_elements(const void* from, bool f32, int64_t index, float (&to)[kVector]) {
  if (f32) {
    load_f32(static_cast<const float*>(from) + index, to);
  } else {
    load_f32(static_cast<const BF16*>(from) + index, to);
  }
}
template <int kVector>
__device__ inline void store_elements(void* to, bool f32, int64_t index, const float (&from)[kVector]) {
  if (f32) {
    store_f32(static_cast<float*>(to) + index, from);
  } else {
    store_f32(static_cast<BF16*>(to) + index, from);
  }
}

inline RowOutput row_output(const QuantTensor& out) {
  RowOutput output{.data = out.data.bytes, .scale = nullptr, .stride = out.data.row_stride, .format = RowFormat::kBF16};
  if (!out.format.quantized()) {
    if (out.data.dtype == DType::kF32) output.format = RowFormat::kF32;
    return output;
  }
  output.scale = out.scale.data<float>();
  output.format = out.format.granularity == Granularity::kTensor ? RowFormat::kStaticTensor
                  : out.format.dynamic                           ? RowFormat::kDynamicToken
                                                                 : RowFormat::kGivenToken;
  return output;
}

inline std::string declines_output(const QuantFormat& format) {
  if (format == plain_format(DType::kF32) || format == plain_format(DType::kBF16)) return "";
  if (format == kF8DynamicToken || format == kF8StaticTensor) return "";
  return "writes f32, bf16, f8_e4m3 per token (dynamic) and f8_e4m3 per tensor (static), not " + format.to_string();
}

// Over all threads of the CTA, the same bits in each, by one barrier. `of_warps` is shared memory that nothing else
// uses.
//
// The sum: of a warp's lanes as a tree, then of warps as a tree.
__device__ inline float sum_of_lanes(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
// The largest of values that are not negative and not NaN: their bits have their order.
__device__ inline float max_of_lanes(float value) {
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(value)));
}
__device__ inline float of_warp(const float (&of_warps)[32]) {
  return threadIdx.x % 32 < blockDim.x / 32 ? of_warps[threadIdx.x % 32] : 0.0f;
}
__device__ inline float row_max(float value, float (&of_warps)[32]) {
  value = max_of_lanes(value);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  return max_of_lanes(of_warp(of_warps));
}
struct RowTotals {
  float sum, max;
};
__device__ inline RowTotals row_sum_and_max(float part, float candidate, float (&sums)[32], float (&maxima)[32]) {
  candidate = max_of_lanes(candidate);
  part = sum_of_lanes(part);
  if (threadIdx.x % 32 == 0) {
    sums[threadIdx.x / 32] = part;
    maxima[threadIdx.x / 32] = candidate;
  }
  __syncthreads();
  return {sum_of_lanes(of_warp(sums)), max_of_lanes(of_warp(maxima))};
}

// The largest magnitude that the thread holds; NaN does not count.
template <int kVector, int kVectors>
__device__ inline float largest_magnitude(const float (&values)[kVectors][kVector]) {
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) largest = fmaxf(largest, fabsf(values[i][k]));
  }
  return largest;
}

// The column of the thread's vector i, counted from its CTA's first.
template <int kVector>
__device__ inline int column_of(int i) {
  return (static_cast<int>(threadIdx.x) + i * static_cast<int>(blockDim.x)) * kVector;
}

// x / scale as IEEE 754's division rounds it, where the quotient is finite and the scale and its inverse are normal
// numbers: the remainder of x * (1 / scale) is exact and corrects it (Markstein). Signs of zeros are the division's
// too.
__device__ inline float divided_finite(float x, float scale, float inverse) {
  const float quotient = x * inverse;
  return fmaf(fmaf(quotient, scale, -x), -inverse, quotient);
}
// The same where the quotient may be infinite.
__device__ inline float divided(float x, float scale, float inverse) {
  const float finite = divided_finite(x, scale, inverse);
  return fabsf(finite) < INFINITY ? finite : x * inverse;
}

// The scale of a row in an 8-bit format: made of the row's largest magnitude, and written by whom `writes` names, or
// given. 1 for the others.
__device__ inline float output_scale(const RowOutput& out, RowFormat format, int64_t row, float amax, bool writes) {
  if (format == RowFormat::kF32 || format == RowFormat::kBF16) return 1.0f;
  if (format == RowFormat::kStaticTensor) return *out.scale;
  if (format == RowFormat::kGivenToken) return out.scale[row];
  const float scale = fmaxf(divided(amax, kMaxF8E4M3, 1.0f / kMaxF8E4M3), kMinTokenScale);
  if (writes) out.scale[row] = scale;
  return scale;
}

// Writes `columns` columns of row `row` from column `first` on, which the CTA's threads hold. `scale`: of 8-bit
// formats.
template <int kVector, int kVectors>
__device__ inline void write_row(const RowOutput& out, RowFormat format, int64_t row, int first, int columns,
                                 float scale, float (&values)[kVectors][kVector]) {
  const bool plain = format == RowFormat::kF32 || format == RowFormat::kBF16;
  const float inverse = plain ? 1.0f : 1.0f / scale;
  // Under an infinite scale x * 0 is the quotient, and 0 * 0 - x its harmless remainder.
  const float finite_scale = scale < INFINITY ? scale : 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column >= columns) continue;
    const int64_t at = row * out.stride + first + column;
    if (plain) {
      store_elements(out.data, format == RowFormat::kF32, at, values[i]);
      continue;
    }
#pragma unroll
    for (float& value : values[i]) {
      value = format == RowFormat::kStaticTensor   ? value * inverse
              : format == RowFormat::kDynamicToken ? divided_finite(value, finite_scale, inverse)
                                                   : divided(value, scale, inverse);
    }
    store_f32(static_cast<F8E4M3*>(out.data) + at, values[i]);
  }
}

}  // namespace octet
