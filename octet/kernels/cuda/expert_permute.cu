// cuda.expert_permute: octet/ops/expert_permute.h, one CTA a row, all of it in registers.
#include "octet/kernels/cuda/expert_rows.cuh"
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

struct Arguments {
  RowInput x;
  RowOutput out;
  ExpertRows experts;
  int columns;
  bool scale_per_expert;
};

RowShape shape_of(const ExpertPermuteOp& op) { return row_shape(op.x.dim(1), {op.x, op.out.data}); }

std::string declines(const ExpertPermuteOp& op, const Launch&) {
  const RowShape shape = shape_of(op);
  const std::string reason = declines_output(op.out.format, shape);
  return reason.empty() ? declines_shape(shape) : reason;
}

template <RowKind kKind, int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) expert_permute(const Arguments a) {
  __shared__ float maxima[32];
  RowOutput out = a.out;
  const RowFormat format = format_of<kKind>(out);
  const int row = static_cast<int>(blockIdx.x);
  wait_for_previous();
  start_next();
  if (row >= a.experts.num_rows()) return;
  if (a.scale_per_expert) out.scale += a.experts.expert_of(row);
  const int64_t from = a.experts.token_of(row) * a.x.stride;
  float x[kVectors][kVector] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column < a.columns) load_elements(a.x.data, kKind == RowKind::kAny && a.x.f32, from + column, x[i]);
  }
  float amax = 0.0f;
  if (wants_amax(format)) amax = row_max(largest_magnitude(x, format), maxima);
  const float scale = output_scale(out, format, row, amax, threadIdx.x == 0);
  write_row(out, format, row, 0, a.columns, scale, x);
}

void run(const ExpertPermuteOp& op, const Launch& launch) {
  const int64_t num_rows = op.out.data.dim(0);
  const int64_t columns = op.x.dim(1);
  if (num_rows == 0 || columns == 0 || op.plan.num_experts() == 0) return;
  const Arguments arguments{.x = row_input(op.x),
                            .out = row_output(op.out),
                            .experts = expert_rows(op.plan),
                            .columns = static_cast<int>(columns),
                            .scale_per_expert = op.out.format.granularity == Granularity::kTensor};
  const RowShape shape = shape_of(op);
  const RowKind kind = row_kind(!arguments.x.f32, shape, arguments.out);
  dispatch_row(kind, shape, [&]<RowKind kKind, int kVector, int kVectors>() {
    launch_kernel("cuda.expert_permute", launch,
                  {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(static_cast<unsigned>(shape.threads))},
                  expert_permute<kKind, kVector, kVectors>, arguments);
  });
}

}  // namespace

Kernel<ExpertPermuteOp> cuda_expert_permute() {
  return {.name = "cuda.expert_permute", .declines = declines, .run = run};
}

}  // namespace octet
