// cuda.rms_norm: octet/ops/rms_norm.h, one CTA a row, all of it in registers: one pass over memory and one barrier. The
// weight is multiplied first, so that the largest value is known with the sum of squares. Sums in F32: a thread's
// elements in order, lanes as a tree, warps in order.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

struct Arguments {
  RowInput x;
  void* residual;
  const float* weight;
  RowOutput out;
  int64_t residual_stride;
  int columns;
  float inverse_columns;
  float epsilon;
  bool residual_f32;
};

RowShape shape_of(const RmsNormOp& op) {
  const int64_t columns = op.weight.dim(0);
  return row_shape(columns, {op.x, op.residual, op.weight.reshape(Shape{1, columns}), op.out.data});
}

std::string declines(const RmsNormOp& op, const Launch&) {
  const RowShape shape = shape_of(op);
  const std::string reason = declines_output(op.out.format, shape);
  return reason.empty() ? declines_shape(shape) : reason;
}

// 1 / sqrt(x): the processor's estimate and one step of Newton's.
__device__ float inverse_root(float x) {
  const float y = rsqrtf(x);
  return fmaf(0.5f * y, fmaf(-x * y, y, 1.0f), y);
}

template <RowKind kKind, int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) rms_norm(const Arguments a) {
  __shared__ float sums[32];
  __shared__ float maxima[32];
  // Weights come while the kernel before still runs, where there are registers for them.
  constexpr bool kEarlyWeight = kVector * kVectors <= 16;
  const int64_t row = blockIdx.x;
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
  const bool adds = kKind != RowKind::kAny || a.x.data != nullptr;
  float y[kVectors][kVector] = {};
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column >= a.columns) continue;
    if constexpr (!kEarlyWeight) load_f32(a.weight + column, weight[0]);
    const int64_t at = row * a.residual_stride + column;
    load_elements(a.residual, residual_f32, at, y[i]);
    if (adds) {
      float x[kVector];
      load_elements(a.x.data, kKind == RowKind::kAny && a.x.f32, row * a.x.stride + column, x);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        y[i][k] += x[k];
        if (!residual_f32) y[i][k] = device_f32(device_bf16(y[i][k]));  // as stored
      }
      store_elements(a.residual, residual_f32, at, y[i]);
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

void run(const RmsNormOp& op, const Launch& launch) {
  const int64_t num_rows = op.residual.dim(0);
  const int64_t columns = op.residual.dim(1);
  if (num_rows == 0 || columns == 0) return;
  const Arguments arguments{.x = row_input(op.x),
                            .residual = op.residual.bytes,
                            .weight = op.weight.data<float>(),
                            .out = row_output(op.out),
                            .residual_stride = op.residual.row_stride,
                            .columns = static_cast<int>(columns),
                            .inverse_columns = 1.0f / static_cast<float>(columns),
                            .epsilon = op.epsilon,
                            .residual_f32 = op.residual.dtype == DType::kF32};
  const RowShape shape = shape_of(op);
  const bool all_bf16 = op.residual.dtype == DType::kBF16 && op.x && op.x.dtype == DType::kBF16;
  dispatch_row(row_kind(all_bf16, shape, arguments.out), shape, [&]<RowKind kKind, int kVector, int kVectors>() {
    launch_kernel("cuda.rms_norm", launch,
                  {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(static_cast<unsigned>(shape.threads))},
                  rms_norm<kKind, kVector, kVectors>, arguments);
  });
}

}  // namespace

Kernel<RmsNormOp> cuda_rms_norm() { return {.name = "cuda.rms_norm", .declines = declines, .run = run}; }

}  // namespace octet
