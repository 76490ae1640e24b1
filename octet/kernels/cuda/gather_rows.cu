// cuda.gather_rows: octet/ops/gather_rows.h, a copy of bytes: a thread copies 16 of one row, or 2 where rows are not
// aligned to 16.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

constexpr int kThreads = 128;

struct Arguments {
  std::byte* out;
  const std::byte* x;
  const int32_t* rows;
  int64_t out_stride, x_stride, num_bytes;  // in bytes
};

std::string declines(const GatherRowsOp&, const Launch&) { return ""; }

template <class Word>
__global__ void __launch_bounds__(kThreads) gather_rows(const Arguments a) {
  const int64_t r = blockIdx.x;
  const int64_t offset = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * static_cast<int64_t>(sizeof(Word));
  start_next();
  wait_for_previous();
  if (offset >= a.num_bytes) return;
  *reinterpret_cast<Word*>(a.out + r * a.out_stride + offset) =
      *reinterpret_cast<const Word*>(a.x + a.rows[r] * a.x_stride + offset);
}

void run(const GatherRowsOp& op, const Launch& launch) {
  const int64_t element = dtype_bytes(op.x.dtype);
  const Arguments arguments{.out = op.out.bytes,
                            .x = op.x.bytes,
                            .rows = op.rows.data<int32_t>(),
                            .out_stride = op.out.row_stride * element,
                            .x_stride = op.x.row_stride * element,
                            .num_bytes = op.x.dim(1) * element};
  if (op.out.dim(0) == 0 || arguments.num_bytes == 0) return;
  const bool aligned = has_aligned_rows(op.x.dim(1), {op.out, op.x});
  const int64_t per_cta = kThreads * (aligned ? 16 : 2);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(op.out.dim(0)),
                                       static_cast<unsigned>((arguments.num_bytes + per_cta - 1) / per_cta)),
                          .block = dim3(kThreads)};
  launch_kernel("cuda.gather_rows", launch, shape, aligned ? gather_rows<uint4> : gather_rows<uint16_t>, arguments);
}

}  // namespace

Kernel<GatherRowsOp> cuda_gather_rows() { return {.name = "cuda.gather_rows", .declines = declines, .run = run}; }

}  // namespace octet
