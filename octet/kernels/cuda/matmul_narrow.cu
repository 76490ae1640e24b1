// cuda.matmul_narrow: matmuls of a few channels, as a router of few experts is one: BF16 operands, at most 16 channels.
// A CTA has a token, a warp of it a channel or two: for tensor cores there is no tile to fill. The first columns of the
// weight are in registers before the kernel before this one is done. A lane adds vectors 32 apart in their order, lanes
// are added as a tree: a token's bits depend on K alone.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"
#include "octet/ops/matmul.h"

namespace octet {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxChannels = 2 * kWarps;
constexpr int kVector = 8;
constexpr int kStep = 32 * kVector;  // columns of a warp at a time
constexpr int kEarly = 16;           // steps whose weights come early

struct Arguments {
  const BF16* x;
  const BF16* weight;
  const float* bias;  // null: none
  void* out;
  int64_t x_stride, out_stride;
  int num_channels, k;
  bool out_f32;
};

__device__ inline void add_products(float (&sum)[2], const float (&x)[kVector], const float (&w)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum[i % 2] = fmaf(x[i], w[i], sum[i % 2]);
}

__global__ void __launch_bounds__(32 * kWarps) matmul_narrow(const Arguments a) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t token = blockIdx.x;
  const auto column_of_step = [&](int step) { return step * kStep + lane * kVector; };
  int channel = static_cast<int>(threadIdx.x) / 32;
  uint4 early[kEarly] = {};
#pragma unroll
  for (int i = 0; i < kEarly; ++i) {
    if (channel < a.num_channels && column_of_step(i) < a.k) {
      early[i] = *reinterpret_cast<const uint4*>(a.weight + int64_t{channel} * a.k + column_of_step(i));
    }
  }
  start_next();
  wait_for_previous();
  const BF16* x_row = a.x + token * a.x_stride;
  for (bool first = true; channel < a.num_channels; channel += kWarps, first = false) {
    const BF16* weight = a.weight + int64_t{channel} * a.k;
    float sum[2] = {};
    int done = 0;
    if (first) {
#pragma unroll
      for (int i = 0; i < kEarly; ++i) {
        float x[kVector];
        float w[kVector];
        if (column_of_step(i) >= a.k) continue;
        load_f32(x_row + column_of_step(i), x);
        load_f32(reinterpret_cast<const BF16*>(&early[i]), w);
        add_products(sum, x, w);
      }
      done = kEarly;
    }
#pragma unroll 4
    for (int column = column_of_step(done); column < a.k; column += kStep) {
      float x[kVector];
      float w[kVector];
      load_f32(x_row + column, x);
      load_f32(weight + column, w);
      add_products(sum, x, w);
    }
    const float total = sum_of_lanes(sum[0] + sum[1]);
    const float value = a.bias != nullptr ? total + a.bias[channel] : total;
    if (lane == 0) store_f32_or_bf16(a.out, token * a.out_stride + channel, value, a.out_f32);
  }
}

std::string declines(const MatmulOp& op, const Launch&) {
  const QuantFormat bf16 = plain_format(DType::kBF16);
  if (op.x.format != bf16 || op.weight.format != bf16) {
    return fmt::format("takes bf16 x bf16, not {} x {}", op.x.format.to_string(), op.weight.format.to_string());
  }
  if (op.out.dim(1) > kMaxChannels)
    return fmt::format("takes at most {} channels, not {}", kMaxChannels, op.out.dim(1));
  return has_aligned_rows(op.x.data.dim(1), {op.x.data, op.weight.data}) ? ""
                                                                         : "takes rows that are aligned to 16 bytes";
}

void run(const MatmulOp& op, const Launch& launch) {
  const Arguments arguments{.x = op.x.data.data<BF16>(),
                            .weight = op.weight.data.data<BF16>(),
                            .bias = op.bias ? op.bias.data<float>() : nullptr,
                            .out = op.out.bytes,
                            .x_stride = op.x.data.row_stride,
                            .out_stride = op.out.row_stride,
                            .num_channels = static_cast<int>(op.out.dim(1)),
                            .k = static_cast<int>(op.x.data.dim(1)),
                            .out_f32 = op.out.dtype == DType::kF32};
  if (op.out.dim(0) == 0) return;
  launch_kernel("cuda.matmul_narrow", launch,
                {.grid = dim3(static_cast<unsigned>(op.out.dim(0))), .block = dim3(32 * kWarps)}, matmul_narrow,
                arguments);
}

}  // namespace

Kernel<MatmulOp> cuda_matmul_narrow() { return {.name = "cuda.matmul_narrow", .declines = declines, .run = run}; }

}  // namespace octet
