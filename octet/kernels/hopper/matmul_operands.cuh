// What Hopper's matmul rows have in common: the operands that they take, and what is done with a sum.
#pragma once

#include <algorithm>

#include "octet/kernels/cuda/numbers.cuh"
#include "octet/kernels/hopper/tma.cuh"
#include "octet/ops/matmul.h"

namespace octet {

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// out[token, channel] = x_scale * weight_scale * sum + bias.
struct MatmulOutput {
  const float* x_scale;       // null: none
  const float* weight_scale;  // null: none
  const float* bias;          // null: none
  void* out;
  int64_t out_stride;
  int num_tokens, num_channels;
  bool scale_per_token, scale_per_channel, out_f32;

  __device__ float x_scale_of(int token) const {
    return x_scale != nullptr ? x_scale[scale_per_token ? token : 0] : 1.0f;
  }
  __device__ float weight_scale_of(int channel) const {
    return weight_scale != nullptr ? weight_scale[scale_per_channel ? channel : 0] : 1.0f;
  }
};

inline MatmulOutput make_matmul_output(const MatmulOp& op) {
  const auto floats = [](const ConstTensor& t) { return t ? t.data<float>() : nullptr; };
  return {.x_scale = floats(op.x.scale),
          .weight_scale = floats(op.weight.scale),
          .bias = floats(op.bias),
          .out = op.out.bytes,
          .out_stride = op.out.row_stride,
          .num_tokens = static_cast<int>(op.out.dim(0)),
          .num_channels = static_cast<int>(op.out.dim(1)),
          .scale_per_token = op.x.format.granularity == Granularity::kToken,
          .scale_per_channel = op.weight.format.granularity == Granularity::kChannel,
          .out_f32 = op.out.dtype == DType::kF32};
}

inline int64_t num_chunks(const MatmulOp& op) {
  return ceil_divide(op.x.data.dim(1) * dtype_bytes(op.x.data.dtype), kChunkBytes);
}

// Why a row for operands of this type, read by the copy engine, cannot take an op; empty: it can.
inline std::string operands_decline(const MatmulOp& op, const Launch& launch, DType dtype) {
  if (launch.gpu == nullptr || launch.gpu->compute_capability != 90) return "needs compute capability 9.0";
  if (op.x.data.dtype != dtype || op.weight.data.dtype != dtype) {
    return fmt::format("takes {} x {}, not {} x {}", dtype_name(dtype), dtype_name(dtype), op.x.format.to_string(),
                       op.weight.format.to_string());
  }
  const Granularity x = op.x.format.granularity;
  const Granularity weight = op.weight.format.granularity;
  if ((x != Granularity::kNone && x != Granularity::kTensor && x != Granularity::kToken) ||
      (weight != Granularity::kNone && weight != Granularity::kTensor && weight != Granularity::kChannel)) {
    return fmt::format("takes scales per tensor, token and channel, not {} x {}", op.x.format.to_string(),
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
