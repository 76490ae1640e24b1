// What Hopper's matmul rows have in common: the operands that they take, and what is done with a sum.
#pragma once

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <utility>

#include "octet/kernels/cuda/numbers.cuh"
#include "octet/kernels/hopper/tma.cuh"
#include "octet/ops/matmul.h"

namespace octet {

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a row multiplies: the element of both operands, what products are added in, and whether every chunk of K has
// scales of its own (kF8Block's and kF8DynamicGroup's, whose 128 columns are a chunk).
template <class ElementType, class SumType, bool kChunks>
struct MatmulKind {
  using Element = ElementType;
  using Sum = SumType;
  static constexpr bool kScalesChunks = kChunks;
};
using F8Kind = MatmulKind<F8E4M3, float, false>;
using F8BlockKind = MatmulKind<F8E4M3, float, true>;
using I8Kind = MatmulKind<int8_t, int32_t, false>;
using BF16Kind = MatmulKind<BF16, float, false>;

// The scales of chunks: of x one per token, of the weight one per 2^row_bits channels.
struct ChunkScales {
  const float* x = nullptr;
  const float* weight = nullptr;
  int num_chunks = 0;  // the stride of both
  int row_bits = 0;
  int matrix_rows = 0;  // of scales, of one matrix of a stack

  // Where those of a token and of a matrix's channel begin; the last ones' for what lies beyond the edges.
  __device__ int of_token(int token, int num_tokens) const { return min(token, num_tokens - 1) * num_chunks; }
  __device__ int of_channel(int channel, int num_channels, int matrix) const {
    return ((min(channel, num_channels - 1) >> row_bits) + matrix * matrix_rows) * num_chunks;
  }
  // Beyond the edge of K the products are 0, whatever their scale.
  __device__ int inside(int chunk) const { return min(chunk, num_chunks - 1); }
};

// out[token, channel] = x_scale * weight_scale * sum + bias; where chunks have scales, these two are 1. Of a stack of
// matrices each has scales of its own; `matrix` is 0 where there is one.
struct MatmulOutput {
  const float* x_scale;       // null: none
  const float* weight_scale;  // null: none
  const float* bias;          // null: none
  void* out;
  int64_t out_stride;
  int num_tokens, num_channels;
  bool scale_per_token, scale_per_channel, out_f32;
  ChunkScales chunks;

  __device__ float x_scale_of(int token, int matrix) const {
    return x_scale != nullptr ? x_scale[scale_per_token ? token : matrix] : 1.0f;
  }
  __device__ float weight_scale_of(int channel, int matrix) const {
    return weight_scale != nullptr ? weight_scale[scale_per_channel ? matrix * num_channels + channel : matrix] : 1.0f;
  }
};

// Of a weight whose chunks have scales.
inline int rows_of_scale(const QuantFormat& weight) { return std::max(weight.group_rows, 1); }

inline MatmulOutput make_matmul_output(const MatmulOp& op) {
  const auto floats = [](const ConstTensor& t) { return t ? t.data<float>() : nullptr; };
  MatmulOutput output{.x_scale = floats(op.x.scale),
                      .weight_scale = floats(op.weight.scale),
                      .bias = floats(op.bias),
                      .out = op.out.bytes,
                      .out_stride = op.out.row_stride,
                      .num_tokens = static_cast<int>(op.out.dim(0)),
                      .num_channels = static_cast<int>(op.out.dim(1)),
                      .scale_per_token = op.x.format.granularity == Granularity::kToken,
                      .scale_per_channel = op.weight.format.granularity == Granularity::kChannel,
                      .out_f32 = op.out.dtype == DType::kF32,
                      .chunks = {}};
  if (op.x.format.granularity == Granularity::kGroup) {
    output.chunks = {.x = std::exchange(output.x_scale, nullptr),
                     .weight = std::exchange(output.weight_scale, nullptr),
                     .num_chunks = static_cast<int>(op.x.scale.dim(1)),
                     .row_bits = std::countr_zero(static_cast<uint32_t>(rows_of_scale(op.weight.format))),
                     .matrix_rows = static_cast<int>(op.weight.scale.dim(0))};
  }
  return output;
}

inline int64_t num_chunks(const MatmulOp& op) {
  return ceil_divide(op.x.data.dim(1) * dtype_bytes(op.x.data.dtype), kChunkBytes);
}

// Whether rows that multiply `kind` take operands of such formats.
template <class Kind>
bool takes_formats(const QuantFormat& x, const QuantFormat& weight) {
  constexpr DType kDType = DTypeOf<typename Kind::Element>::value;
  if (x.dtype != kDType || weight.dtype != kDType || x.zero_point) return false;
  const auto is = [](const QuantFormat& format, std::initializer_list<Granularity> granularities) {
    return std::ranges::find(granularities, format.granularity) != granularities.end();
  };
  if constexpr (Kind::kScalesChunks) {
    return x.granularity == Granularity::kGroup && x.group_cols == kChunkBytes && weight.group_cols == kChunkBytes &&
           std::has_single_bit(static_cast<uint32_t>(rows_of_scale(weight))) &&
           is(weight, {Granularity::kBlock, Granularity::kGroup});
  }
  if constexpr (std::is_same_v<typename Kind::Element, BF16>) return !x.quantized() && !weight.quantized();
  return is(x, {Granularity::kTensor, Granularity::kToken}) &&
         is(weight, {Granularity::kTensor, Granularity::kChannel});
}

// Why a row that multiplies `kind`, read by the copy engine, cannot take an op; empty: it can.
template <class Kind>
std::string operands_decline(const MatmulOp& op, const Launch& launch) {
  if (launch.gpu == nullptr || launch.gpu->compute_capability != 90) return "needs compute capability 9.0";
  if (!takes_formats<Kind>(op.x.format, op.weight.format)) {
    constexpr std::string_view kScales = Kind::kScalesChunks ? " with scales per 128 columns"
                                         : std::is_same_v<typename Kind::Element, BF16>
                                             ? ""
                                             : " with scales per tensor, token and channel";
    const std::string_view dtype = dtype_name(DTypeOf<typename Kind::Element>::value);
    return fmt::format("takes {} x {}{}, not {} x {}", dtype, dtype, kScales, op.x.format.to_string(),
                       op.weight.format.to_string());
  }
  if (op.out.dim(0) < 1) return "takes one token or more";
  std::string reason = tma_declines(op.x.data, "x");
  return reason.empty() ? tma_declines(op.weight.data, "weight") : reason;
}

// Why a row that writes several channels at once cannot write op.out; empty: it can.
inline std::string vector_output_declines(const MatmulOp& op) {
  if (op.out.dim(1) % 8 != 0) return fmt::format("takes a multiple of 8 channels, not {}", op.out.dim(1));
  if (reinterpret_cast<uintptr_t>(op.out.bytes) % 16 != 0 || op.out.row_stride * dtype_bytes(op.out.dtype) % 16 != 0) {
    return "rows of out must be aligned to 16 bytes";
  }
  return "";
}

}  // namespace octet
