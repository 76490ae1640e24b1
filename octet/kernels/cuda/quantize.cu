// cuda.quantize: octet/ops/quantize.h, one CTA a row, all of it in registers.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

struct Arguments {
  RowInput x;
  RowOutput out;
  int columns;
};

RowShape shape_of(const QuantizeOp& op) { return row_shape(op.x.dim(1), {op.x, op.out.data}); }

std::string declines(const QuantizeOp& op, const Launch&) {
  const RowShape shape = shape_of(op);
  const std::string reason = token_scale_given(op.out.format) ? "" : declines_output(op.out.format, shape);
  return reason.empty() ? declines_shape(shape) : reason;
}

template <RowKind kKind, int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) quantize(const Arguments a) {
  __shared__ float maxima[32];
  const RowFormat format = format_of<kKind>(a.out);
  const int64_t row = blockIdx.x;
  start_next();
  wait_for_previous();
  float x[kVectors][kVector] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column < a.columns) load_elements(a.x.data, kKind == RowKind::kAny && a.x.f32, row * a.x.stride + column, x[i]);
  }
  float amax = 0.0f;
  if (wants_amax(format)) amax = row_max(largest_magnitude(x, format), maxima);
  const float scale = output_scale(a.out, format, row, amax, threadIdx.x == 0);
  write_row(a.out, format, row, 0, a.columns, scale, x);
}

void run(const QuantizeOp& op, const Launch& launch) {
  const int64_t num_rows = op.x.dim(0);
  const int64_t columns = op.x.dim(1);
  if (num_rows == 0 || columns == 0) return;
  const Arguments arguments{.x = row_input(op.x), .out = row_output(op.out), .columns = static_cast<int>(columns)};
  const RowShape shape = shape_of(op);
  const RowKind kind = row_kind(!arguments.x.f32, shape, arguments.out);
  dispatch_row(kind, shape, [&]<RowKind kKind, int kVector, int kVectors>() {
    launch_kernel("cuda.quantize", launch,
                  {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(static_cast<unsigned>(shape.threads))},
                  quantize<kKind, kVector, kVectors>, arguments);
  });
}

}  // namespace

Kernel<QuantizeOp> cuda_quantize() { return {.name = "cuda.quantize", .declines = declines, .run = run}; }

}  // namespace octet
