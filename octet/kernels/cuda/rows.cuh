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

// 8-bit formats are f8_e4m3 unless they are I8.
enum class RowFormat {
  kF32,
  kBF16,
  kDynamicToken,
  kGivenToken,
  kStaticTensor,
  kDynamicGroup,
  kDynamicTokenI8,
  kGivenTokenI8,
  kStaticTensorI8,
};
inline constexpr int kRowGroup = 128;  // columns of kDynamicGroup's scales

struct RowOutput {
  void* data;
  float* scale;  // read or written, as the format says
  int64_t stride;
  RowFormat format;
  int64_t scale_stride = 1;   // between rows
  bool power_of_two = false;  // kDynamicGroup
  float amax_cap = INFINITY;  // kDynamicToken
};

// What a kernel is compiled for: BF16 activations to the formats of nearly every launch, a quarter of a microsecond
// faster, or any formats, asked for at run time.
enum class RowKind { kAny, kToBF16, kToDynamicToken, kToStaticTensor, kToDynamicGroup, kToDynamicTokenI8 };

inline RowKind row_kind(bool all_bf16, const RowShape& shape, const RowOutput& out) {
  if (!all_bf16 || shape.vector == 1 || out.amax_cap < INFINITY) return RowKind::kAny;
  switch (out.format) {
    case RowFormat::kBF16:
      return RowKind::kToBF16;
    case RowFormat::kDynamicToken:
      return RowKind::kToDynamicToken;
    case RowFormat::kStaticTensor:
      return RowKind::kToStaticTensor;
    case RowFormat::kDynamicGroup:
      return RowKind::kToDynamicGroup;
    case RowFormat::kDynamicTokenI8:
      return RowKind::kToDynamicTokenI8;
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
  if constexpr (kKind == RowKind::kToDynamicGroup) return RowFormat::kDynamicGroup;
  if constexpr (kKind == RowKind::kToDynamicTokenI8) return RowFormat::kDynamicTokenI8;
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
  if (kind == RowKind::kToDynamicGroup) return dispatch_vectors<RowKind::kToDynamicGroup>(shape, fn);
  if (kind == RowKind::kToDynamicTokenI8) return dispatch_vectors<RowKind::kToDynamicTokenI8>(shape, fn);
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

inline RowFormat row_format(const QuantFormat& format) {
  const bool i8 = format.dtype == DType::kI8;
  if (!format.quantized()) return format.dtype == DType::kF32 ? RowFormat::kF32 : RowFormat::kBF16;
  if (format.granularity == Granularity::kGroup) return RowFormat::kDynamicGroup;
  if (format.granularity == Granularity::kTensor) return i8 ? RowFormat::kStaticTensorI8 : RowFormat::kStaticTensor;
  if (format.dynamic) return i8 ? RowFormat::kDynamicTokenI8 : RowFormat::kDynamicToken;
  return i8 ? RowFormat::kGivenTokenI8 : RowFormat::kGivenToken;
}

inline RowOutput row_output(const QuantTensor& out) {
  RowOutput output{.data = out.data.bytes,
                   .scale = out.format.quantized() ? out.scale.data<float>() : nullptr,
                   .stride = out.data.row_stride,
                   .format = row_format(out.format),
                   .power_of_two = out.format.power_of_two};
  if (output.format == RowFormat::kDynamicGroup) output.scale_stride = out.scale.dim(1);
  if (out.format.amax_cap > 0.0f) output.amax_cap = out.format.amax_cap;
  return output;
}

// Why rows cut as `shape` cannot be written in a format; empty: they can.
inline std::string declines_output(const QuantFormat& format, const RowShape& shape) {
  if (format == plain_format(DType::kF32) || format == plain_format(DType::kBF16)) return "";
  QuantFormat uncapped = format;
  uncapped.amax_cap = 0.0f;
  if (uncapped == kF8DynamicToken) return "";
  QuantFormat any_power = format;
  any_power.power_of_two = false;
  if (any_power == kF8DynamicGroup) {
    return shape.vector == 8 ? "" : "writes groups of 128 columns of rows that are aligned to 16 bytes only";
  }
  if (format == kF8StaticTensor || format == kI8DynamicToken || format == kI8StaticTensor) return "";
  return "writes f32, bf16, f8_e4m3 per token or per 128 columns (dynamic) or per tensor (static), i8 per token "
         "(dynamic) or per tensor (static) without zero points, not " +
         format.to_string();
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
// The largest of values that are not negative: their bits have their order, NaN's last.
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

// Whether a row's scale is made of its largest magnitude.
__host__ __device__ inline bool wants_amax(RowFormat format) {
  return format == RowFormat::kDynamicToken || format == RowFormat::kDynamicTokenI8;
}

// The largest magnitude that the thread holds. NaN does not count, or is the largest where the format is I8, which has
// no code for it.
template <int kVector, int kVectors>
__device__ inline float largest_magnitude(const float (&values)[kVectors][kVector], RowFormat format) {
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const float magnitude = fabsf(values[i][k]);
      largest = format == RowFormat::kDynamicTokenI8
                    ? __uint_as_float(max(__float_as_uint(largest), __float_as_uint(magnitude)))
                    : fmaxf(largest, magnitude);
    }
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

// 2^ceil(log2(x)) of a normal number.
__device__ inline float raised_to_power_of_two(float x) {
  const uint32_t bits = __float_as_uint(x);
  return __uint_as_float((bits + 0x7fffffu) & 0x7f800000u);
}

// The scale of a row in an 8-bit format: made of the row's largest magnitude, and written by whom `writes` names, or
// given. 1 for the others, and for those that have several.
__device__ inline float output_scale(const RowOutput& out, RowFormat format, int64_t row, float amax, bool writes) {
  float scale = 1.0f;
  switch (format) {
    case RowFormat::kF32:
    case RowFormat::kBF16:
    case RowFormat::kDynamicGroup:
      return scale;
    case RowFormat::kStaticTensor:
    case RowFormat::kStaticTensorI8:
      return *out.scale;
    case RowFormat::kGivenToken:
    case RowFormat::kGivenTokenI8:
      return out.scale[row];
    case RowFormat::kDynamicToken:
      scale = fmaxf(divided(fminf(amax, out.amax_cap), kMaxF8E4M3, 1.0f / kMaxF8E4M3), kMinTokenScale);
      break;
    case RowFormat::kDynamicTokenI8:  // with a NaN or an infinity: infinite
      scale = amax < INFINITY ? fmaxf(divided(amax, 127.0f, 1.0f / 127.0f), kMinI8Scale) : INFINITY;
      break;
  }
  if (writes) out.scale[row] = scale;
  return scale;
}

// The scale of the group of columns that the lanes of a half warp hold 8 of each, from `column` on.
__device__ inline float group_scale(const RowOutput& out, int64_t row, int column, bool writes,
                                    const float (&values)[8]) {
  float amax = 0.0f;
#pragma unroll
  for (const float value : values) amax = fmaxf(amax, fabsf(value));
#pragma unroll
  for (int step = kRowGroup / 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
  float scale = 0.0f;
  if (out.power_of_two) {
    scale = fmaxf(divided(amax, kMaxF8E4M3, 1.0f / kMaxF8E4M3), kMinGroupAmax);
    if (scale < INFINITY) scale = raised_to_power_of_two(scale);
  } else {
    scale = divided(fmaxf(amax, kMinGroupAmax), kMaxF8E4M3, 1.0f / kMaxF8E4M3);
  }
  if (writes && column % kRowGroup == 0) out.scale[row * out.scale_stride + column / kRowGroup] = scale;
  return scale;
}

// A value of a dynamic format's row, whose scale is at least the quotient's bound. Under an infinite scale x * 0 is the
// quotient, and 0 * 0 - x its harmless remainder.
__device__ inline float divided_dynamic(float x, float scale, float inverse) {
  return divided_finite(x, scale < INFINITY ? scale : 0.0f, inverse);
}

template <int kVector>
__device__ inline void store_i8(void* to, int64_t index, const float (&from)[kVector]) {
  union {
    int8_t codes[kVector];
    uint2 words;
  };
#pragma unroll
  for (int k = 0; k < kVector; ++k) codes[k] = static_cast<int8_t>(min(max(__float2int_rn(from[k]), -128), 127));
  if constexpr (kVector == 8) {
    *reinterpret_cast<uint2*>(static_cast<int8_t*>(to) + index) = words;
  } else {
    static_cast<int8_t*>(to)[index] = codes[0];
  }
}

// Writes `columns` columns of row `row` from column `first` on, which the CTA's threads hold: zeros beyond the last.
// `scale`: of the row in 8-bit formats. `first` begins a group where the format has them.
template <int kVector, int kVectors>
__device__ inline void write_row(const RowOutput& out, RowFormat format, int64_t row, int first, int columns,
                                 float scale, float (&values)[kVectors][kVector]) {
  const bool plain = format == RowFormat::kF32 || format == RowFormat::kBF16;
  float inverse = plain ? 1.0f : 1.0f / scale;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if constexpr (kVector == 8) {
      if (format == RowFormat::kDynamicGroup) {
        scale = group_scale(out, row, first + column, column < columns, values[i]);
        inverse = 1.0f / scale;
      }
    }
    if (column >= columns) continue;
    const int64_t at = row * out.stride + first + column;
    if (plain) {
      store_elements(out.data, format == RowFormat::kF32, at, values[i]);
      continue;
    }
#pragma unroll
    for (float& value : values[i]) {
      switch (format) {
        case RowFormat::kStaticTensor:
          value *= inverse;
          break;
        case RowFormat::kDynamicToken:
        case RowFormat::kDynamicGroup:
        case RowFormat::kDynamicTokenI8:
          value = out.amax_cap < INFINITY ? divided(value, scale, inverse) : divided_dynamic(value, scale, inverse);
          break;
        default:
          value = divided(value, scale, inverse);
      }
    }
    if (format >= RowFormat::kDynamicTokenI8) {
      store_i8(out.data, at, values[i]);
    } else {
      store_f32(static_cast<F8E4M3*>(out.data) + at, values[i]);
    }
  }
}

}  // namespace octet
