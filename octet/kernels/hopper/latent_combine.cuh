// The second kernel of latent attention: adds what several CTAs have of a unit, in the order of the line. For every CTA
// of the first kernel whose last unit goes on in the next it has eight CTAs: of a unit in P parts the 8 (P - 1) share
// its 64 rows, each row made by as many warps as that gives, at most the eight of one CTA.
#pragma once

#include "octet/kernels/hopper/attention_prefill.cuh"
#include "octet/kernels/hopper/latent_line.cuh"

namespace octet {

inline constexpr int kLatentCombineWarps = 8;
inline constexpr int kLatentCombineThreads = kLatentCombineWarps * 32;
inline constexpr int kLatentCombineCtas = kLatentRows / kLatentCombineWarps;
inline constexpr int kLatentLane = kLatentDim / 32;  // columns of a lane: fours, 128 apart

// The parts of one row: part 0 in the slot where the first CTA ended, the others where CTAs began.
struct LatentRowParts {
  LatentPartials partials;
  SplitUnit unit;
  int row;

  __device__ int count() const { return unit.last_cta - unit.first_cta + 1; }
  __device__ int64_t index(int i) const {
    return (2 * int64_t{unit.first_cta + i} + (i == 0 ? 1 : 0)) * kLatentRows + row;
  }
  __device__ float2 softmax(int i) const { return partials.softmax[index(i)]; }

  // This lane's columns of every `step`-th part from `first` on, weighted and added.
  __device__ void add(int first, int step, float (&sums)[kLatentLane]) const {
    constexpr int kAhead = 2;  // loads under way
    float highest = -INFINITY, total = 0.0f;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int i = lane; i < count(); i += 32) highest = fmaxf(highest, softmax(i).x);
    for (int k = 16; k > 0; k /= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, k));
    for (int i = lane; i < count(); i += 32) total += softmax(i).y * exp2_fast(softmax(i).x - highest);
    for (int k = 16; k > 0; k /= 2) total += __shfl_xor_sync(0xffffffffu, total, k);
    for (int base = first; base < count(); base += kAhead * step) {
      float4 ahead[kAhead][kLatentLane / 4];
      float weight[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = base + j * step;
        const float score = i < count() ? softmax(i).x : -INFINITY;
        // Of a part of whose keys the row saw none there are no sums.
        weight[j] = score == -INFINITY ? 0.0f : exp2_fast(score - highest) / total;
        const auto* from = reinterpret_cast<const float4*>(partials.sums + index(i) * kLatentDim) + lane;
#pragma unroll
        for (int k = 0; k < kLatentLane / 4; ++k)
          ahead[j][k] = weight[j] == 0.0f ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : from[32 * k];
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
#pragma unroll
        for (int k = 0; k < kLatentLane / 4; ++k) {
          sums[4 * k] = fmaf(weight[j], ahead[j][k].x, sums[4 * k]);
          sums[4 * k + 1] = fmaf(weight[j], ahead[j][k].y, sums[4 * k + 1]);
          sums[4 * k + 2] = fmaf(weight[j], ahead[j][k].z, sums[4 * k + 2]);
          sums[4 * k + 3] = fmaf(weight[j], ahead[j][k].w, sums[4 * k + 3]);
        }
      }
    }
  }
};

// Warps that make a row together: a power of two.
__device__ inline int warps_of_row(const SplitUnit& unit) {
  return min(kLatentCombineWarps, 1 << log2_of(unit.last_cta - unit.first_cta));
}

__global__ void __launch_bounds__(kLatentCombineThreads)
    latent_combine(const AttentionInput in, const AttentionOutput output, const LatentPartials partials) {
  __shared__ float4 of_warps[kLatentCombineWarps][kLatentLane / 4][32];
  const int cta = static_cast<int>(blockIdx.x) / kLatentCombineCtas;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  wait_for_previous();
  start_next();
  const SplitUnit unit = partials.units[cta];
  if (unit.sequence < 0) return;
  const int index = (cta - unit.first_cta) * kLatentCombineCtas + static_cast<int>(blockIdx.x) % kLatentCombineCtas;
  const int warps = warps_of_row(unit);
  const int row = (index * kLatentCombineWarps + warp) / warps;
  const SequenceView view(in, unit.sequence);
  const int r = unit.row_block * kLatentRows + row;
  const bool exists = row < kLatentRows && r < view.num_rows * in.num_heads;
  float sums[kLatentLane] = {};
  if (exists) LatentRowParts{.partials = partials, .unit = unit, .row = row}.add(warp % warps, warps, sums);
#pragma unroll
  for (int k = 0; k < kLatentLane / 4; ++k)
    of_warps[warp][k][lane] = make_float4(sums[4 * k], sums[4 * k + 1], sums[4 * k + 2], sums[4 * k + 3]);
  __syncthreads();
  if (!exists) return;
  for (int k = warp % warps; k < kLatentLane / 4; k += warps) {
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int w = warp / warps * warps; w < warp / warps * warps + warps; ++w) {
      const float4 part = of_warps[w][k][lane];
      sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
    }
    const int64_t t = view.first_row + r / in.num_heads;
    const int column = r % in.num_heads * kLatentDim + (lane + 32 * k) * 4;
    store_pair(output, t, column, {sum.x * in.v_scale, sum.y * in.v_scale}, 0.0f);
    store_pair(output, t, column + 2, {sum.z * in.v_scale, sum.w * in.v_scale}, 0.0f);
  }
}

inline void launch_latent_combine(std::string_view name, const PagedAttentionOp& op, const Launch& launch,
                                  const LatentPartials& partials, int64_t ctas) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(ctas * kLatentCombineCtas)),
                          .block = dim3(kLatentCombineThreads)};
  launch_kernel(name, launch, shape, latent_combine, attention_input(op), attention_output(op), partials);
}

}  // namespace octet
