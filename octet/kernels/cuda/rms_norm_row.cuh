// RMSNorm of one row by one CTA, all of it in registers: one pass over memory and one barrier. The weight is multiplied
// first, so that the largest value is known with the sum of squares. Sums in F32: a thread's elements in order, lanes
// as a tree, warps in order. What is added to the residual comes from the kernel around it.
#pragma once

#include "octet/kernels/cuda/rows.cuh"
#include "octet/ops/rms_norm.h"

namespace octet {

struct RmsNormArguments {
  void* residual;
  const float* weight;
  RowOutput out;
  int64_t residual_stride;
  int columns;
  float inverse_columns;
  float epsilon;
  bool residual_f32;
  bool adds;
};

inline RmsNormArguments rms_norm_arguments(const RmsNormOp& op) {
  const int64_t columns = op.residual.dim(1);
  return {.residual = op.residual.bytes,
          .weight = op.weight.data<float>(),
          .out = row_output(op.out),
          .residual_stride = op.residual.row_stride,
          .columns = static_cast<int>(columns),
          .inverse_columns = 1.0f / static_cast<float>(columns),
          .epsilon = op.epsilon,
          .residual_f32 = op.residual.dtype == DType::kF32,
          .adds = static_cast<bool>(op.x)};
}

inline RowShape rms_norm_shape(const RmsNormOp& op) {
  const int64_t columns = op.weight.dim(0);
  return row_shape(columns, {op.x, op.residual, op.weight.reshape(Shape{1, columns}), op.out.data});
}

inline std::string declines_rms_norm(const RmsNormOp& op, const RowShape& shape) {
  const std::string reason = declines_output(op.out.format, shape);
  return reason.empty() ? declines_shape(shape) : reason;
}

inline RowKind rms_norm_kind(const RmsNormOp& op, const RowShape& shape, const RowOutput& out) {
  return row_kind(op.residual.dtype == DType::kBF16 && op.x && op.x.dtype == DType::kBF16, shape, out);
}

// 1 / sqrt(x): the processor's estimate and one step of Newton's.
__device__ inline float inverse_root(float x) {
  const float y = rsqrtf(x);
  return fmaf(0.5f * y, fmaf(-x * y, y, 1.0f), y);
}

// Called by all threads of a kernel that has done nothing yet. `make_x()` is called once the kernels before have ended
// and gives x(i, column, values), which is called for the thread's vectors: the values to add at `column`.
template <RowKind kKind, int kVector, int kVectors, class MakeX>
__device__ inline void rms_norm_row(const RmsNormArguments& a, int64_t row, MakeX&& make_x) {
  __shared__ float sums[32];
  __shared__ float maxima[32];
  // Where there are registers for them, weights come while the kernel before still runs, and the residual before x.
  constexpr bool kEarlyWeight = kVector * kVectors <= 16;
  float weight[kEarlyWeight ? kVectors : 1][kVector];
  if constexpr (kEarlyWeight) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (column_of<kVector>(i) < a.columns) load_f32(a.weight + column_of<kVector>(i), weight[i]);
    }
  }
  start_next();
  wait_for_previous();

  const RowFormat format = format_of<kKind>(a.out);
  const bool residual_f32 = kKind == RowKind::kAny && a.residual_f32;
  const bool adds = kKind != RowKind::kAny || a.adds;
  float y[kVectors][kVector] = {};
  const auto load_residual = [&](int i, int column) {
    load_elements(a.residual, residual_f32, row * a.residual_stride + column, y[i]);
  };
  if constexpr (kEarlyWeight) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (column_of<kVector>(i) < a.columns) load_residual(i, column_of<kVector>(i));
    }
  }
  auto x_of = make_x();
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column >= a.columns) continue;
    if constexpr (!kEarlyWeight) {
      load_f32(a.weight + column, weight[0]);
      load_residual(i, column);
    }
    if (adds) {
      float x[kVector];
      x_of(i, column, x);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        y[i][k] += x[k];
        if (!residual_f32) y[i][k] = device_f32(device_bf16(y[i][k]));  // as stored
      }
      store_elements(a.residual, residual_f32, row * a.residual_stride + column, y[i]);
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      squares = fmaf(y[i][k], y[i][k], squares);
      y[i][k] *= weight[kEarlyWeight ? i : 0][k];
    }
  }
  const float candidate = wants_amax(format) ? largest_magnitude(y, format) : 0.0f;
  const RowTotals totals = row_sum_and_max(squares, candidate, sums, maxima);
  const float inverse = inverse_root(totals.sum * a.inverse_columns + a.epsilon);
  // Rounding keeps order: this is the largest |y|.
  const float scale = output_scale(a.out, format, row, totals.max * inverse, threadIdx.x == 0);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
#pragma unroll
    for (float& value : y[i]) value *= inverse;
  }
  write_row(a.out, format, row, 0, a.columns, scale, y);
}

}  // namespace octet
