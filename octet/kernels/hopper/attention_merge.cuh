// The meeting of a CTA's warps at the end of a task of rope_attention_decode, whose keys they share.
#pragma once

#include "octet/kernels/hopper/attention_warp.cuh"

namespace octet {

// What the warps leave for each other at the end of a task.
template <class S>
struct WarpResults {
  float4 sums[kSplitWarps][S::kMergeVectors];
  float highest[kSplitWarps][S::kQueries];
  float total[kSplitWarps][S::kQueries];
};

// What the warps' softmaxes of one task are to be multiplied by before they are added, and the sum of their weights.
template <class S>
struct Merge {
  float correction[kSplitWarps][S::kQueryBlocks][2];
  float highest[S::kQueryBlocks][2];
  float total[S::kQueryBlocks][2];

  __device__ explicit Merge(const WarpResults<S>& results) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 2; ++i) {
        const int column = nb * 8 + lane % 4 * 2 + i;
        float most = results.highest[0][column];
        for (int w = 1; w < kSplitWarps; ++w) most = fmaxf(most, results.highest[w][column]);
        const float base = most == -INFINITY ? 0.0f : most;
        highest[nb][i] = most;
        total[nb][i] = 0.0f;
        for (int w = 0; w < kSplitWarps; ++w) {
          correction[w][nb][i] = exp2_fast(results.highest[w][column] - base);
          total[nb][i] += results.total[w][column] * correction[w][nb][i];
        }
      }
    }
  }
};

// Adds the warps' softmaxes of one task in their order. Every warp leaves its O^T in shared memory and adds a quarter
// of the tiles: put(tile, nb, sums, merge) gets each of them, in the layout of an mma's result.
template <class S, class Put>
__device__ void merge_warps(const Softmax<S>& softmax, WarpResults<S>& results, Put put) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  __syncthreads();  // all have read what the task before left
  for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
    for (int i = 0; i < 2; ++i) {
      float total = softmax.total[nb][i];
      for (int step = 4; step < 32; step *= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
      if (lane < 4) {
        results.highest[warp][nb * 8 + lane * 2 + i] = softmax.highest[nb][i];
        results.total[warp][nb * 8 + lane * 2 + i] = total;
      }
    }
  }
#pragma unroll
  for (int pass = 0; pass < S::kMergePasses; ++pass) {
    if (pass > 0) __syncthreads();
#pragma unroll
    for (int t = 0; t < S::kPassTiles; ++t) {
      for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
        const float(&sums)[4] = softmax.sums[pass * S::kPassTiles + t][nb];
        results.sums[warp][(t * S::kQueryBlocks + nb) * 32 + lane] = make_float4(sums[0], sums[1], sums[2], sums[3]);
      }
    }
    __syncthreads();
    const Merge<S> merge(results);
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int t = warp; t < S::kPassTiles; t += kSplitWarps) {
        float sums[4] = {};
        for (int w = 0; w < kSplitWarps; ++w) {
          const float4 part = results.sums[w][(t * S::kQueryBlocks + nb) * 32 + lane];
          sums[0] += part.x * merge.correction[w][nb][0];
          sums[1] += part.y * merge.correction[w][nb][1];
          sums[2] += part.z * merge.correction[w][nb][0];
          sums[3] += part.w * merge.correction[w][nb][1];
        }
        put(pass * S::kPassTiles + t, nb, sums, merge);
      }
    }
  }
}

}  // namespace octet
