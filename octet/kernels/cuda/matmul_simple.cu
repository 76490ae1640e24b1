// cuda.matmul_simple, cuda.expert_matmul_simple: every matmul of the contracts (octet/ops/matmul.h, expert_matmul.h) in
// F32 multiply-adds, at any size and alignment. What faster rows decline ends here; it is written to be right.
//
// A CTA makes a tile of 32 tokens x 64 channels; each of its 256 threads 2 tokens x 4 channels. Tiles of x and weight,
// 32 wide in K, pass through shared memory as F32 (exact for every type, zero points subtracted). The sum over a K
// tile, times the scales of the groups and blocks that it lies in, is added to the sum over those before it: two
// levels, so that rounding grows with the root of K / 32. The order depends on K alone. INT8 by INT8 is summed in I32.
#include "octet/kernels/cuda/expert_rows.cuh"
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

// A matrix's scales: one per `rows` rows and `columns` columns; 0: one for all of them.
struct Scales {
  const float* data;  // null: none
  int64_t stride;
  int rows, columns;

  __device__ float of(int64_t row, int64_t column) const {
    if (data == nullptr) return 1.0f;
    return data[(rows == 0 ? 0 : row / rows * stride) + (columns == 0 ? 0 : column / columns)];
  }
};

Scales scales_of(const ConstQuantTensor& matrix) {
  if (!matrix.format.quantized()) return {};
  const QuantFormat& format = matrix.format;
  const bool by_columns = format.granularity == Granularity::kGroup || format.granularity == Granularity::kBlock;
  return {.data = matrix.scale.data<float>(),
          .stride = by_columns ? matrix.scale.dim(1) : 1,
          .rows = format.granularity == Granularity::kTensor ? 0 : std::max(format.group_rows, 1),
          .columns = by_columns ? format.group_cols : 0};
}

struct Arguments {
  const void* x;
  Scales x_scale;
  const int32_t* x_zero;  // null: none
  const void* weight;
  Scales weight_scale;
  const float* bias;  // null: none
  void* out;
  int64_t num_tokens, num_channels, k;
  int64_t x_stride, out_stride;
  bool zero_per_token, out_f32;
  ExpertRows experts;     // a matrix for each, if there are any
  int64_t expert_scales;  // of an expert's weight
  bool x_scale_per_token;
};

std::string declines(const MatmulOp& op, const Launch&) {
  const DType x = op.x.data.dtype;
  const DType w = op.weight.data.dtype;
  if (x != DType::kF32 && x != DType::kBF16 && x != DType::kF8E4M3 && x != DType::kI8) {
    return "takes x in f32, bf16, f8_e4m3 or i8, not " + op.x.format.to_string();
  }
  if (w != DType::kF32 && w != DType::kBF16 && w != DType::kF16 && w != DType::kF8E4M3 && w != DType::kI8) {
    return "takes weights in f32, bf16, f16, f8_e4m3 or i8, not " + op.weight.format.to_string();
  }
  if ((x == DType::kI8 && w != DType::kI8) || (w == DType::kI8 && x == DType::kF8E4M3)) {
    return fmt::format("takes i8 with i8 or plain values, not {} x {}", op.x.format.to_string(),
                       op.weight.format.to_string());
  }
  for (const QuantFormat& format : {op.x.format, op.weight.format}) {
    if (format.group_cols % kTileK != 0) {
      return fmt::format("takes groups of a multiple of {} columns, not {}", kTileK, format.to_string());
    }
  }
  return "";
}

// Rows [first, first + kRows) x columns [k, k + kTileK) of a matrix, less its rows' zero(row), into tile[column][row];
// zeros beyond its edges.
template <int kRows, class T, class Zero>
__device__ void load_tile(float (&tile)[kTileK][kRows + 1], const T* matrix, int64_t first, int64_t num_rows,
                          int64_t stride, int64_t k, int64_t num_columns, Zero&& zero) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTileK; i += kThreads) {
    const int row = i / kTileK;
    const int column = i % kTileK;
    const bool inside = first + row < num_rows && k + column < num_columns;
    tile[column][row] = inside ? device_f32(matrix[(first + row) * stride + k + column]) - zero(first + row) : 0.0f;
  }
}

// The arguments of expert e's product.
template <class X, class W>
__device__ Arguments of_expert(Arguments a, int e) {
  const int64_t begin = a.experts.offsets[e];
  a.num_tokens = a.experts.offsets[e + 1] - begin;
  a.x = static_cast<const X*>(a.x) + begin * a.x_stride;
  if (a.x_scale.data != nullptr) a.x_scale.data += a.x_scale_per_token ? begin * a.x_scale.stride : e;
  if (a.x_zero != nullptr) a.x_zero += a.zero_per_token ? begin : e;
  a.weight = static_cast<const W*>(a.weight) + e * a.num_channels * a.k;
  if (a.weight_scale.data != nullptr) a.weight_scale.data += e * a.expert_scales;
  a.out = static_cast<std::byte*>(a.out) + begin * a.out_stride * (a.out_f32 ? 4 : 2);
  return a;
}

template <class X, class W>
__global__ void __launch_bounds__(kThreads, 2) matmul_simple(const Arguments all) {
  wait_for_previous();
  const Arguments a = all.experts.offsets == nullptr ? all : of_expert<X, W>(all, static_cast<int>(blockIdx.z));
  constexpr bool kExact = std::is_same_v<X, int8_t> && std::is_same_v<W, int8_t>;
  using Sum = std::conditional_t<kExact, int32_t, float>;
  __shared__ float x_tile[kTileK][kTileTokens + 1];
  __shared__ float w_tile[kTileK][kTileChannels + 1];
  const int channel0 = static_cast<int>(threadIdx.x) % kChannelThreads;
  const int token0 = static_cast<int>(threadIdx.x) / kChannelThreads;
  const int64_t first_channel = int64_t{blockIdx.x} * kTileChannels;
  const int64_t first_token = int64_t{blockIdx.y} * kTileTokens;
  const auto token_of = [&](int t) { return first_token + token0 + t * (kTileTokens / kThreadTokens); };
  const auto channel_of = [&](int c) { return first_channel + channel0 + c * kChannelThreads; };
  const auto x_zero = [&](int64_t token) {
    return kExact && a.x_zero != nullptr ? static_cast<float>(a.x_zero[a.zero_per_token ? token : 0]) : 0.0f;
  };
  const bool grouped = a.x_scale.columns != 0 || a.weight_scale.columns != 0;
  // What the sums of a tile of K are multiplied by.
  const auto scale_at = [&](int t, int c, int64_t k) {
    const int64_t token = min(token_of(t), a.num_tokens - 1);
    const int64_t channel = min(channel_of(c), a.num_channels - 1);
    return a.x_scale.of(token, k) * a.weight_scale.of(channel, k);
  };
  if (first_token >= a.num_tokens) return;
  Sum sum[kThreadTokens][kThreadChannels] = {};
  for (int64_t k = 0; k < a.k; k += kTileK) {
    load_tile<kTileTokens>(x_tile, static_cast<const X*>(a.x), first_token, a.num_tokens, a.x_stride, k, a.k, x_zero);
    load_tile<kTileChannels>(w_tile, static_cast<const W*>(a.weight), first_channel, a.num_channels, a.k, k, a.k,
                             [](int64_t) { return 0.0f; });
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
      for (int c = 0; c < kThreadChannels; ++c) {
        sum[t][c] += static_cast<Sum>(grouped ? part[t][c] * scale_at(t, c, k) : part[t][c]);
      }
    }
    __syncthreads();
  }
  start_next();
  for (int t = 0; t < kThreadTokens; ++t) {
    if (token_of(t) >= a.num_tokens) continue;
    for (int c = 0; c < kThreadChannels; ++c) {
      const int64_t channel = channel_of(c);
      if (channel >= a.num_channels) continue;
      float value = static_cast<float>(sum[t][c]);
      if (!grouped) value *= scale_at(t, c, 0);
      if (a.bias != nullptr) value += a.bias[channel];
      store_f32_or_bf16(a.out, token_of(t) * a.out_stride + channel, value, a.out_f32);
    }
  }
}

// With experts: op has the first one's weight, and all rows; an expert has at most max_rows.
void run_matrices(std::string_view name, const MatmulOp& op, const ExpertRows& experts, int64_t max_rows,
                  const Launch& launch) {
  const Arguments arguments{.x = op.x.data.bytes,
                            .x_scale = scales_of(op.x),
                            .x_zero = op.x.zero_point ? op.x.zero_point.data<int32_t>() : nullptr,
                            .weight = op.weight.data.bytes,
                            .weight_scale = scales_of(op.weight),
                            .bias = op.bias ? op.bias.data<float>() : nullptr,
                            .out = op.out.bytes,
                            .num_tokens = op.out.dim(0),
                            .num_channels = op.out.dim(1),
                            .k = op.x.data.dim(1),
                            .x_stride = op.x.data.row_stride,
                            .out_stride = op.out.row_stride,
                            .zero_per_token = op.x.format.granularity == Granularity::kToken,
                            .out_f32 = op.out.dtype == DType::kF32,
                            .experts = experts,
                            .expert_scales = op.weight.format.quantized() ? op.weight.scale.num_elements() : 0,
                            .x_scale_per_token = op.x.format.granularity != Granularity::kTensor};
  if (arguments.num_tokens == 0 || arguments.num_channels == 0) return;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>((arguments.num_channels + kTileChannels - 1) / kTileChannels),
                   static_cast<unsigned>((max_rows + kTileTokens - 1) / kTileTokens),
                   static_cast<unsigned>(std::max(experts.num_experts, 1))),
      .block = dim3(kThreads)};
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kI8>(op.x.data.dtype, [&]<DType kX>() {
    dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI8>(op.weight.data.dtype, [&]<DType kW>() {
      constexpr bool kTaken = kX == DType::kI8 ? kW == DType::kI8 : kX != DType::kF8E4M3 || kW != DType::kI8;
      if constexpr (kTaken) {
        launch_kernel(name, launch, shape, matmul_simple<CType<kX>, CType<kW>>, arguments);
      }
    });
  });
}

void run(const MatmulOp& op, const Launch& launch) {
  run_matrices("cuda.matmul_simple", op, {}, op.out.dim(0), launch);
}

std::string declines_experts(const ExpertMatmulOp& op, const Launch& launch) {
  return op.plan.num_experts() == 0 ? "" : declines(first_matrix(op), launch);
}
void run_experts(const ExpertMatmulOp& op, const Launch& launch) {
  if (op.plan.num_experts() == 0) return;
  run_matrices("cuda.expert_matmul_simple", first_matrix(op), expert_rows(op.plan), op.plan.rows.dim(0), launch);
}

}  // namespace

Kernel<MatmulOp> cuda_matmul_simple() { return {.name = "cuda.matmul_simple", .declines = declines, .run = run}; }
Kernel<ExpertMatmulOp> cuda_expert_matmul_simple() {
  return {.name = "cuda.expert_matmul_simple", .declines = declines_experts, .run = run_experts};
}

}  // namespace octet
