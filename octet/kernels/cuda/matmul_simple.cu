// cuda.matmul_simple: every matmul of the contract (octet/ops/matmul.h) in F32 multiply-adds, at any size and
// alignment. What faster rows decline ends here; it is written to be right.
//
// A CTA makes a tile of 32 tokens x 64 channels; each of its 256 threads 2 tokens x 4 channels. Tiles of x and weight,
// 32 wide in K, pass through shared memory as F32 (exact for every type). The sum over a K tile is added to the sum
// over those before it: two levels, so that rounding grows with the root of K / 32. The order depends on K alone.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kTileTokens = 32;
constexpr int kTileChannels = 64;
constexpr int kTileK = 32;
constexpr int kThreads = 256;
constexpr int kThreadTokens = 2;
constexpr int kThreadChannels = 4;
constexpr int kChannelThreads = kTileChannels / kThreadChannels;

struct Arguments {
  const void* x;
  const float* x_scale;  // null: none
  const void* weight;
  const float* weight_scale;  // null: none
  const float* bias;          // null: none
  void* out;
  int64_t num_tokens, num_channels, k;
  int64_t x_stride, out_stride;
  bool scale_per_token, scale_per_channel, out_f32;
};

std::string declines(const MatmulOp& op, const Launch&) {
  const DType x = op.x.data.dtype;
  const DType w = op.weight.data.dtype;
  if (x != DType::kF32 && x != DType::kBF16 && x != DType::kF8E4M3) {
    return "takes x in f32, bf16 or f8_e4m3, not " + op.x.format.to_string();
  }
  if (w != DType::kF32 && w != DType::kBF16 && w != DType::kF16 && w != DType::kF8E4M3) {
    return "takes weights in f32, bf16, f16 or f8_e4m3, not " + op.weight.format.to_string();
  }
  const Granularity gx = op.x.format.granularity;
  if (gx != Granularity::kNone && gx != Granularity::kTensor && gx != Granularity::kToken) {
    return "takes x plain, per tensor or per token, not " + op.x.format.to_string();
  }
  const Granularity gw = op.weight.format.granularity;
  if (gw != Granularity::kNone && gw != Granularity::kTensor && gw != Granularity::kChannel) {
    return "takes weights plain, per tensor or per channel, not " + op.weight.format.to_string();
  }
  return "";
}

// Rows [first, first + kRows) x columns [k, k + kTileK) of a matrix into tile[column][row]; zeros beyond its edges.
template <int kRows, class T>
__device__ void load_tile(float (&tile)[kTileK][kRows + 1], const T* matrix, int64_t first, int64_t num_rows,
                          int64_t stride, int64_t k, int64_t num_columns) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTileK; i += kThreads) {
    const int row = i / kTileK;
    const int column = i % kTileK;
    const bool inside = first + row < num_rows && k + column < num_columns;
    tile[column][row] = inside ? device_f32(matrix[(first + row) * stride + k + column]) : 0.0f;
  }
}

template <class X, class W>
__global__ void __launch_bounds__(kThreads, 2) matmul_simple(const Arguments a) {
  __shared__ float x_tile[kTileK][kTileTokens + 1];
  __shared__ float w_tile[kTileK][kTileChannels + 1];
  const int channel0 = static_cast<int>(threadIdx.x) % kChannelThreads;
  const int token0 = static_cast<int>(threadIdx.x) / kChannelThreads;
  const int64_t first_channel = int64_t{blockIdx.x} * kTileChannels;
  const int64_t first_token = int64_t{blockIdx.y} * kTileTokens;
  float sum[kThreadTokens][kThreadChannels] = {};
  wait_for_previous();
  for (int64_t k = 0; k < a.k; k += kTileK) {
    load_tile<kTileTokens>(x_tile, static_cast<const X*>(a.x), first_token, a.num_tokens, a.x_stride, k, a.k);
    load_tile<kTileChannels>(w_tile, static_cast<const W*>(a.weight), first_channel, a.num_channels, a.k, k, a.k);
    __syncthreads();
    float part[kThreadTokens][kThreadChannels] = {};
#pragma unroll 8
    for (int i = 0; i < kTileK; ++i) {
      for (int t = 0; t < kThreadTokens; ++t) {
        const float value = x_tile[i][token0 + t * (kTileTokens / kThreadTokens)];
        for (int c = 0; c < kThreadChannels; ++c) {
          part[t][c] = fmaf(value, w_tile[i][channel0 + c * kChannelThreads], part[t][c]);
        }
      }
    }
    for (int t = 0; t < kThreadTokens; ++t) {
      for (int c = 0; c < kThreadChannels; ++c) sum[t][c] += part[t][c];
    }
    __syncthreads();
  }
  start_next();
  for (int t = 0; t < kThreadTokens; ++t) {
    const int64_t token = first_token + token0 + t * (kTileTokens / kThreadTokens);
    if (token >= a.num_tokens) continue;
    const float x_scale = a.x_scale != nullptr ? a.x_scale[a.scale_per_token ? token : 0] : 1.0f;
    for (int c = 0; c < kThreadChannels; ++c) {
      const int64_t channel = first_channel + channel0 + c * kChannelThreads;
      if (channel >= a.num_channels) continue;
      const float w_scale = a.weight_scale != nullptr ? a.weight_scale[a.scale_per_channel ? channel : 0] : 1.0f;
      float value = x_scale * w_scale * sum[t][c];
      if (a.bias != nullptr) value += a.bias[channel];
      store_f32_or_bf16(a.out, token * a.out_stride + channel, value, a.out_f32);
    }
  }
}

const float* floats(const ConstTensor& tensor) { return tensor ? tensor.data<float>() : nullptr; }

void run(const MatmulOp& op, const Launch& launch) {
  const Arguments arguments{.x = op.x.data.bytes,
                            .x_scale = floats(op.x.scale),
                            .weight = op.weight.data.bytes,
                            .weight_scale = floats(op.weight.scale),
                            .bias = floats(op.bias),
                            .out = op.out.bytes,
                            .num_tokens = op.out.dim(0),
                            .num_channels = op.out.dim(1),
                            .k = op.x.data.dim(1),
                            .x_stride = op.x.data.row_stride,
                            .out_stride = op.out.row_stride,
                            .scale_per_token = op.x.format.granularity == Granularity::kToken,
                            .scale_per_channel = op.weight.format.granularity == Granularity::kChannel,
                            .out_f32 = op.out.dtype == DType::kF32};
  if (arguments.num_tokens == 0 || arguments.num_channels == 0) return;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>((arguments.num_channels + kTileChannels - 1) / kTileChannels),
                   static_cast<unsigned>((arguments.num_tokens + kTileTokens - 1) / kTileTokens)),
      .block = dim3(kThreads)};
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3>(op.x.data.dtype, [&]<DType kX>() {
    dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3>(op.weight.data.dtype, [&]<DType kW>() {
      launch_kernel("cuda.matmul_simple", launch, shape, matmul_simple<CType<kX>, CType<kW>>, arguments);
    });
  });
}

}  // namespace

Kernel<MatmulOp> cuda_matmul_simple() { return {.name = "cuda.matmul_simple", .declines = declines, .run = run}; }

}  // namespace octet
