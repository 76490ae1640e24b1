// The way of keys through a CTA of attention_decode or rope_attention_decode: each warp's ring of copies, the loop over
// a task's steps, and the meeting of the warps at the end of a task. Which tasks follow each other a cursor says:
//   bool done(); int sequence(); int kv_head(); TaskKeys keys(); void next();
#pragma once

#include "octet/kernels/hopper/attention_warp.cuh"

namespace octet {

// The steps of 16 keys that one warp makes of a task: from first(), kTaskStride apart, below end.
struct TaskKeys {
  int split_begin, begin, end;

  template <class Splits>
  __device__ TaskKeys(const SequenceView& view, Splits splits, int split)
      : split_begin(splits.begin(split)), begin(view.begin), end(min(splits.begin(split + 1), view.seq_len)) {}
  __device__ int first(int warp) const {
    const int key = split_begin + warp * kStepKeys;
    const int skip = begin - (kStepKeys - 1) - key;  // whole steps before the first key that is seen
    return skip > 0 ? key + (skip + kTaskStride - 1) / kTaskStride * kTaskStride : key;
  }
};

// Where a warp's copies stand: the next step to be fetched, a ring's length ahead of the one that is computed.
template <class S, class Cursor>
class Fetcher {
 public:
  __device__ Fetcher(const AttentionInput& in, const Cursor& first, uint32_t ring)
      : in_(in), cursor_(first), ring_(ring), block_shift_(log2_of(in.block_size)) {
    find_step(true);
  }

  // Starts the copies of the next step, if any, into stage `stage`; always commits a group.
  __device__ void fetch(int stage) {
    if (!cursor_.done()) {
      const int64_t cell = int64_t{first_cell_ + (key_ & (in_.block_size - 1))} * S::kRowBytes;
      const auto* k = static_cast<const std::byte*>(in_.k_cache) +
                      block_ * in_.k_block_stride * int64_t{sizeof(typename S::Element)} + cell;
      const auto* v = static_cast<const std::byte*>(in_.v_cache) +
                      block_ * in_.v_block_stride * int64_t{sizeof(typename S::Element)} + cell;
      const uint32_t tile = ring_ + static_cast<uint32_t>(stage * 2 * S::kTileBytes);
      const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
      for (int i = 0; i < S::kTileBytes / 16 / 32; ++i) {
        const int chunk = lane + 32 * i;
        const uint32_t to = tile + S::place(chunk / S::kRowChunks, chunk % S::kRowChunks);
        copy_async_16(to, k + chunk * 16);
        copy_async_16(to + S::kTileBytes, v + chunk * 16);
      }
      key_ += kTaskStride;
      find_step(false);
    }
    commit_copies();
  }

 private:
  // Moves on to a step that exists, and asks for its block: the answer is used by the next fetch.
  __device__ void find_step(bool new_task) {
    for (; !cursor_.done(); cursor_.next(), new_task = true) {
      if (new_task) {
        first_cell_ = cursor_.kv_head() * in_.block_size;
        const TaskKeys keys = cursor_.keys();
        key_ = keys.first(static_cast<int>(threadIdx.x) / 32);
        end_ = keys.end;
      }
      if (key_ < end_) {
        block_ = in_.block_table[cursor_.sequence() * in_.table_stride + (key_ >> block_shift_)];
        return;
      }
    }
  }

  const AttentionInput& in_;
  Cursor cursor_;
  uint32_t ring_;
  int block_shift_;
  int first_cell_ = 0;  // of the KV head in its block
  int key_ = 0;
  int end_ = 0;
  int64_t block_ = 0;
};

// All steps of a task that are this warp's. `stage`: of the first, then of the next task's first. patch(key, tile) may
// change what was fetched for the keys from `key` on before it is used.
template <class S, class Cursor, class Patch>
__device__ void add_keys(const AttentionInput& in, const SequenceView& view, const TaskKeys& keys,
                         const Queries<S>& queries, uint32_t ring, int& stage, Fetcher<S, Cursor>& fetcher,
                         Softmax<S>& softmax, Patch patch) {
  for (int key = keys.first(static_cast<int>(threadIdx.x) / 32); key < keys.end; key += kTaskStride) {
    wait_for_copies<S::kInFlight - 1>();
    __syncwarp();
    const uint32_t tile = ring + static_cast<uint32_t>(stage * 2 * S::kTileBytes);
    clear_unseen_values<S>(view, key, tile + S::kTileBytes);
    patch(key, tile);
    const StepWords<S> words(tile);
    if constexpr (!S::kFetchesAtOnce) {
      fetcher.fetch(stage == 0 ? S::kStages - 1 : stage - 1);
      softmax.add_step(queries, in, view, key, words, tile);
    } else {
      // The stage is free once its words are in registers, V of 16 bits once it is multiplied.
      if constexpr (S::kBf16) softmax.add_step(queries, in, view, key, words, tile);
      __syncwarp();
      fetcher.fetch(stage);
      if constexpr (!S::kBf16) softmax.add_step(queries, in, view, key, words, tile);
    }
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
  }
}

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
