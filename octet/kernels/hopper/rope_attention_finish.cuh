// The end of a sequence in rope_attention_decode whose splits several clusters made: their sum.
#pragma once

#include "octet/kernels/hopper/attention_merge.cuh"

namespace octet {

// Partial results in the workspace, as mma left them: [slot, KV head, tile, query block, lane].
struct SplitResults {
  float4* sums;
  float2* softmax;  // [slot, KV head, column]: highest score, sum of weights
  int num_slots;
};

inline SplitResults split_results_in(const Workspace& workspace, int64_t num_kv_heads, int64_t head_dim,
                                     int64_t columns) {
  const int64_t sums = num_kv_heads * head_dim * columns * int64_t{sizeof(float)};
  const int64_t slots = workspace.num_bytes / (sums + num_kv_heads * columns * int64_t{sizeof(float2)});
  return {.sums = reinterpret_cast<float4*>(workspace.data),
          .softmax = reinterpret_cast<float2*>(workspace.data + slots * sums),
          .num_slots = static_cast<int>(std::min<int64_t>(slots, 1 << 30))};
}

template <class S>
struct SplitPlace {
  static constexpr int kVectors = S::kTiles * S::kQueryBlocks * 32;  // of a KV head
  __device__ static int vector(int t, int nb) {
    return (t * S::kQueryBlocks + nb) * 32 + static_cast<int>(threadIdx.x) % 32;
  }
  // Whether the lane's first column of query block nb is a query: its second may be none, and is nobody's then.
  __device__ static bool has(const AttentionInput& in, int nb) {
    return nb * 8 + static_cast<int>(threadIdx.x) % 4 * 2 < in.group;
  }
};

// A task's result, to the slot of its split.
template <class S>
__device__ void write_split(const AttentionInput& in, const SplitResults& results, int64_t slot, int kv_head,
                            const Softmax<S>& softmax, WarpResults<S>& warps) {
  using Place = SplitPlace<S>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t head = slot * in.num_kv_heads + kv_head;
  merge_warps<S>(softmax, warps, [&](int t, int nb, const float(&sums)[4], const Merge<S>& merge) {
    if (!Place::has(in, nb)) return;
    __stcg(results.sums + head * Place::kVectors + Place::vector(t, nb),
           make_float4(sums[0], sums[1], sums[2], sums[3]));
    if (t != 0 || lane >= 4) return;
    for (int i = 0; i < 2; ++i) {
      __stcg(results.softmax + head * S::kQueries + nb * 8 + lane * 2 + i,
             make_float2(merge.highest[nb][i], merge.total[nb][i]));
    }
  });
}

// Columns 2c and 2c + 1 of a tile times a factor each, to the heads' values.
template <class S>
__device__ void put_values(const AttentionInput& in, int t, int nb, const float (&sums)[4], float2 factor,
                           float* values) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int column = nb * 8 + lane % 4 * 2;
  for (int i = 0; i < 2; ++i) {
    if (column + i >= in.group) continue;
    float* const head = values + (column + i) * S::kHeadDim;
    head[dimension_of<S>(t, lane / 4, false)] = sums[i] * (i == 0 ? factor.x : factor.y);
    head[dimension_of<S>(t, lane / 4, true)] = sums[i + 2] * (i == 0 ? factor.x : factor.y);
  }
}

// The result of a task that is all of its sequence.
template <class S>
__device__ void put_whole(const AttentionInput& in, const Softmax<S>& softmax, float* values, WarpResults<S>& warps) {
  merge_warps<S>(softmax, warps, [&](int t, int nb, const float(&sums)[4], const Merge<S>& merge) {
    put_values<S>(in, t, nb, sums, {in.v_scale / merge.total[nb][0], in.v_scale / merge.total[nb][1]}, values);
  });
}

// What the CTA needs to add splits, kChunk at a time; it lies where the warps' results lay.
template <class S>
struct SplitSums {
  static constexpr int kChunk = 64;
  static constexpr int kParts = kSplitThreads / S::kQueries;  // threads of a column
  static constexpr int kWarpTiles = S::kTiles / kSplitWarps;
  static constexpr int kAhead = 8 / kWarpTiles;  // splits whose loads are under way
  float weight[kChunk][S::kQueries];
  float total[kChunk][S::kQueries];
  float of_parts[2][kParts][S::kQueries];
  float correction[S::kQueries];
  float factor[S::kQueries];

  // Turns the scores of splits first .. first + count into weights relative to the highest yet. `highest` and `total_`:
  // of the thread's column.
  __device__ void weigh(const float2* softmax, int64_t stride, int count, float& highest, float& total_) {
    const int column = static_cast<int>(threadIdx.x) % S::kQueries;
    const int part = static_cast<int>(threadIdx.x) / S::kQueries;
    __syncthreads();  // nobody needs the chunk before
    float most = highest;
    for (int i = part; i < count; i += kParts) {
      const float2 of_split = __ldcg(softmax + i * stride + column);
      weight[i][column] = of_split.x;
      total[i][column] = of_split.y;
      most = fmaxf(most, of_split.x);
    }
    of_parts[0][part][column] = most;
    __syncthreads();
    for (int p = 0; p < kParts; ++p) most = fmaxf(most, of_parts[0][p][column]);
    float sum = 0.0f;
    for (int i = part; i < count; i += kParts) {
      weight[i][column] = exp2_fast(weight[i][column] - most);
      sum += total[i][column] * weight[i][column];
    }
    of_parts[1][part][column] = sum;
    const float of_before = exp2_fast(highest - most);
    if (part == 0) correction[column] = of_before;
    __syncthreads();
    total_ *= of_before;
    for (int p = 0; p < kParts; ++p) total_ += of_parts[1][p][column];
    highest = most;
  }
};

// The splits of one KV head of a sequence, from `slot` on, added in their order: the values of its query heads.
template <class S>
__device__ void add_splits(const AttentionInput& in, const SplitResults& results, int64_t slot, int num_splits,
                           int kv_head, float* values, WarpResults<S>& warps) {
  using Place = SplitPlace<S>;
  using Sums = SplitSums<S>;
  static_assert(sizeof(Sums) <= sizeof(WarpResults<S>));
  auto& shared = *reinterpret_cast<Sums*>(&warps);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  float highest = -INFINITY;
  float total = 0.0f;
  float sums[Sums::kWarpTiles][S::kQueryBlocks][4] = {};
  for (int base = 0; base < num_splits; base += Sums::kChunk) {
    const int count = min(Sums::kChunk, num_splits - base);
    const int64_t first = (slot + base) * in.num_kv_heads + kv_head;
    shared.weigh(results.softmax + first * S::kQueries, int64_t{in.num_kv_heads} * S::kQueries, count, highest, total);
#pragma unroll
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      if (!Place::has(in, nb)) continue;
      const int column = nb * 8 + lane % 4 * 2;
      for (int k = 0; k < Sums::kWarpTiles; ++k) {
        for (int i = 0; i < 4; ++i) sums[k][nb][i] *= shared.correction[column + i % 2];
      }
      const float4* from = results.sums + first * Place::kVectors;
#pragma unroll(Sums::kAhead)
      for (int i = 0; i < count; ++i, from += int64_t{in.num_kv_heads} * Place::kVectors) {
        const float2 weight = *reinterpret_cast<const float2*>(&shared.weight[i][column]);
#pragma unroll
        for (int k = 0; k < Sums::kWarpTiles; ++k) {
          const float4 part = __ldcg(from + Place::vector(warp + k * kSplitWarps, nb));
          sums[k][nb][0] += part.x * weight.x;
          sums[k][nb][1] += part.y * weight.y;
          sums[k][nb][2] += part.z * weight.x;
          sums[k][nb][3] += part.w * weight.y;
        }
      }
    }
  }
  if (threadIdx.x < S::kQueries) shared.factor[threadIdx.x] = in.v_scale / total;
  __syncthreads();
#pragma unroll
  for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
    const float2 factor = *reinterpret_cast<const float2*>(&shared.factor[nb * 8 + lane % 4 * 2]);
    for (int k = 0; k < Sums::kWarpTiles; ++k) {
      put_values<S>(in, warp + k * kSplitWarps, nb, sums[k][nb], factor, values);
    }
  }
}

}  // namespace octet
