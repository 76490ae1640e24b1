// cuda.silu_and_mul: octet/ops/silu_and_mul.h, one CTA a row, the products in registers until their largest is known.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

struct Arguments {
  RowInput x;  // gate, then up
  RowOutput out;
  int columns;  // of out
};

RowShape shape_of(const SiluAndMulOp& op) { return row_shape(op.out.data.dim(1), {op.x, op.out.data}); }

std::string declines(const SiluAndMulOp& op, const Launch&) {
  const std::string reason = declines_output(op.out.format);
  return reason.empty() ? declines_shape(shape_of(op)) : reason;
}

// The quotient is within 2 units of the last place; where 1 + exp(-a) is too large for it, the result is 0 either way.
__device__ float silu(float a) { return __fdividef(a, 1.0f + expf(-a)); }

template <int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) silu_and_mul(const Arguments a) {
  __shared__ float maxima[32];
  const int64_t row = blockIdx.x;
  start_next();
  wait_for_previous();
  float y[kVectors][kVector] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = (static_cast<int>(threadIdx.x) + i * static_cast<int>(blockDim.x)) * kVector;
    if (column >= a.columns) continue;
    float gate[kVector];
    float up[kVector];
    load_elements(a.x.data, a.x.f32, row * a.x.stride + column, gate);
    load_elements(a.x.data, a.x.f32, row * a.x.stride + a.columns + column, up);
#pragma unroll
    for (int k = 0; k < kVector; ++k) y[i][k] = silu(gate[k]) * up[k];
  }
  write_row(a.out, row, a.columns, y, maxima);
}

void run(const SiluAndMulOp& op, const Launch& launch) {
  const int64_t num_rows = op.x.dim(0);
  const int64_t columns = op.out.data.dim(1);
  if (num_rows == 0 || columns == 0) return;
  const Arguments arguments{.x = row_input(op.x), .out = row_output(op.out), .columns = static_cast<int>(columns)};
  const RowShape shape = shape_of(op);
  dispatch_row(shape, [&]<int kVector, int kVectors>() {
    launch_kernel("cuda.silu_and_mul", launch,
                  {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(static_cast<unsigned>(shape.threads))},
                  silu_and_mul<kVector, kVectors>, arguments);
  });
}

}  // namespace

Kernel<SiluAndMulOp> cuda_silu_and_mul() { return {.name = "cuda.silu_and_mul", .declines = declines, .run = run}; }

}  // namespace octet
