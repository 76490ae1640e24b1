// cuda.rms_norm: octet/ops/rms_norm.h, one CTA a row (rms_norm_row.cuh).
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rms_norm_row.cuh"

namespace octet {
namespace {

struct Arguments {
  RmsNormArguments norm;
  RowInput x;
};

std::string declines(const RmsNormOp& op, const Launch&) { return declines_rms_norm(op, rms_norm_shape(op)); }

template <RowKind kKind, int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) rms_norm(const Arguments a) {
  const int64_t row = blockIdx.x;
  rms_norm_row<kKind, kVector, kVectors>(a.norm, row, [&] {
    return [&](int, int column, float(&x)[kVector]) {
      load_elements(a.x.data, kKind == RowKind::kAny && a.x.f32, row * a.x.stride + column, x);
    };
  });
}

void run(const RmsNormOp& op, const Launch& launch) {
  const int64_t num_rows = op.residual.dim(0);
  if (num_rows == 0 || op.residual.dim(1) == 0) return;
  const Arguments arguments{.norm = rms_norm_arguments(op), .x = row_input(op.x)};
  const RowShape shape = rms_norm_shape(op);
  const RowKind kind = rms_norm_kind(op, shape, arguments.norm.out);
  dispatch_row(kind, shape, [&]<RowKind kKind, int kVector, int kVectors>() {
    launch_kernel("cuda.rms_norm", launch,
                  {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(static_cast<unsigned>(shape.threads))},
                  rms_norm<kKind, kVector, kVectors>, arguments);
  });
}

}  // namespace

Kernel<RmsNormOp> cuda_rms_norm() { return {.name = "cuda.rms_norm", .declines = declines, .run = run}; }

}  // namespace octet
