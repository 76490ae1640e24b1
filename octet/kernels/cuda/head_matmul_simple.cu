// cuda.head_matmul_simple: octet/ops/head_matmul.h in F32 arithmetic, an output of one token a thread. What faster rows
// decline ends here; it is written to be right.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kThreads = 128;

struct Arguments {
  void* out;
  const void* x;
  const void* weight;
  int64_t out_stride, x_stride;
  int out_step, out_first, x_step, x_first, n, k;
};

std::string declines(const HeadMatmulOp&, const Launch&) { return ""; }

template <class Out, class X, class Weight>
__global__ void __launch_bounds__(kThreads) head_matmul(const Arguments a) {
  const int64_t t = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  start_next();
  wait_for_previous();
  const X* x = static_cast<const X*>(a.x) + t * a.x_stride + int64_t{head} * a.x_step + a.x_first;
  Out* out = static_cast<Out*>(a.out) + t * a.out_stride + int64_t{head} * a.out_step + a.out_first;
  for (int n = static_cast<int>(threadIdx.x); n < a.n; n += kThreads) {
    const Weight* weight = static_cast<const Weight*>(a.weight) + (int64_t{head} * a.n + n) * a.k;
    float sum = 0.0f;
    for (int k = 0; k < a.k; ++k) sum = fmaf(device_f32(x[k]), device_f32(weight[k]), sum);
    out[n] = device_from_f32<Out>(sum);
  }
}

void run(const HeadMatmulOp& op, const Launch& launch) {
  const Arguments arguments{.out = op.out.bytes,
                            .x = op.x.bytes,
                            .weight = op.weight.bytes,
                            .out_stride = op.out.row_stride,
                            .x_stride = op.x.row_stride,
                            .out_step = static_cast<int>(op.out_step),
                            .out_first = static_cast<int>(op.out_first),
                            .x_step = static_cast<int>(op.x_step),
                            .x_first = static_cast<int>(op.x_first),
                            .n = static_cast<int>(op.weight.dim(1)),
                            .k = static_cast<int>(op.weight.dim(2))};
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(op.x.dim(0)), static_cast<unsigned>(op.num_heads())),
                          .block = dim3(kThreads)};
  if (op.x.dim(0) == 0 || op.num_heads() == 0) return;
  dispatch<DType::kF32, DType::kBF16>(op.out.dtype, [&]<DType kOut>() {
    dispatch<DType::kF32, DType::kBF16>(op.x.dtype, [&]<DType kX>() {
      dispatch<DType::kF32, DType::kBF16, DType::kF16>(op.weight.dtype, [&]<DType kWeight>() {
        launch_kernel("cuda.head_matmul_simple", launch, shape, head_matmul<CType<kOut>, CType<kX>, CType<kWeight>>,
                      arguments);
      });
    });
  });
}

}  // namespace

Kernel<HeadMatmulOp> cuda_head_matmul_simple() {
  return {.name = "cuda.head_matmul_simple", .declines = declines, .run = run};
}

}  // namespace octet
