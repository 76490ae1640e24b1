// The end of a sequence in rope_attention_decode: the sum of its splits where there are several, and its row of the
// result, plain and in 8 bits. A cluster has the whole row, each CTA some heads of it in shared memory in F32.
#pragma once

#include <cooperative_groups.h>

#include "octet/kernels/cuda/rows.cuh"
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

inline constexpr int kMaxRanks = 8;  // CTAs of a cluster

// Until all of the row's CTAs are here; what they wrote to their shared memory is then there for all.
__device__ inline void sync_row(int num_ranks) {
  if (num_ranks > 1) {
    cooperative_groups::this_cluster().sync();
  } else {
    __syncthreads();
  }
}

// The CTA's part of a row: `heads` query heads from first_head on, and as many every stride_heads further.
struct RowPart {
  int t;
  int first_head, heads, stride_heads, count;
  int rank, num_ranks;
  int turn;  // 0 and 1, row by row
};

// Calls fn(column of the row, four values from there on) for all of the part, four neighbours a thread.
template <int kHeadDim, class Fn>
__device__ void for_each_four(const RowPart& part, const float* values, Fn fn) {
  const int columns = part.heads * kHeadDim;
  for (int p = 0; p < part.count; ++p) {
    for (int i = static_cast<int>(threadIdx.x) * 4; i < columns; i += kSplitThreads * 4) {
      fn((part.first_head + p * part.stride_heads) * kHeadDim + i,
         *reinterpret_cast<const float4*>(values + p * columns + i));
    }
  }
}

// Where the CTAs of a cluster find their row's largest magnitude; in shared memory. Rows take turns: a CTA may still
// read those of one while peers already write those of the next.
struct RowAmax {
  float of_ranks[2][kMaxRanks];
  float of_warps[kSplitWarps];
};

__device__ inline float row_amax(const RowPart& part, float largest, RowAmax& amax) {
  largest = max_of_lanes(largest);
  if (threadIdx.x % 32 == 0) amax.of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
  for (const float of_warp : amax.of_warps) largest = fmaxf(largest, of_warp);
  if (part.num_ranks == 1) return largest;
  // To all ranks, so that nobody reads what a CTA held that has ended.
  const auto cluster = cooperative_groups::this_cluster();
  float* const place = &amax.of_ranks[part.turn][part.rank];
  if (static_cast<int>(threadIdx.x) < part.num_ranks) *cluster.map_shared_rank(place, threadIdx.x) = largest;
  cluster.sync();
  for (int rank = 0; rank < part.num_ranks; ++rank) largest = fmaxf(largest, amax.of_ranks[part.turn][rank]);
  return largest;
}

// Writes the part from `values`, which all threads see.
template <int kHeadDim>
__device__ void write_part(const AttentionOutput& o, const RowPart& part, const float* values, RowAmax& amax) {
  float scale = 1.0f;
  if (o.quantized != nullptr && o.dynamic) {
    // Before anything is written: the meeting of the cluster would wait for that.
    float largest = 0.0f;
    for_each_four<kHeadDim>(part, values, [&](int, const float4& v) {
      largest = fmaxf(fmaxf(fmaxf(largest, fabsf(v.x)), fmaxf(fabsf(v.y), fabsf(v.z))), fabsf(v.w));
    });
    largest = row_amax(part, largest, amax);
    scale = fmaxf(divided(largest, kMaxF8E4M3, 1.0f / kMaxF8E4M3), kMinTokenScale);
    if (part.rank == 0 && threadIdx.x == 0) o.scale[part.t] = scale;
  } else if (o.quantized != nullptr) {
    scale = *o.scale;
  }
  const float inverse = 1.0f / scale;
  // Under an infinite scale x * 0 is the quotient.
  const float finite_scale = scale < INFINITY ? scale : 0.0f;
  for_each_four<kHeadDim>(part, values, [&](int column, const float4& v) {
    const int64_t at = part.t * o.out_stride + column;
    if (o.out_f32) {
      *reinterpret_cast<float4*>(static_cast<float*>(o.out) + at) = v;
    } else {
      const uint2 packed{pack_bf16({v.x, v.y}), pack_bf16({v.z, v.w})};
      *reinterpret_cast<uint2*>(static_cast<BF16*>(o.out) + at) = packed;
    }
    if (o.quantized == nullptr) return;
    const auto scaled = [&](float x) { return o.dynamic ? divided_finite(x, finite_scale, inverse) : x * inverse; };
    const uint32_t low = pack_e4m3({scaled(v.x), scaled(v.y)});
    const uint32_t high = pack_e4m3({scaled(v.z), scaled(v.w)});
    *reinterpret_cast<uint32_t*>(o.quantized + part.t * o.quantized_stride + column) = low | high << 16;
  });
}

}  // namespace octet
