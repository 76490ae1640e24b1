// The way of keys through a warp of attention_decode or rope_attention_decode: its ring of copies, and the loop over a
// task's steps. Which tasks follow each other a cursor says:
//   kStride; bool done(); int sequence(); int kv_head(); WarpKeys keys(); void next();
#pragma once

#include "octet/kernels/hopper/attention_warp.cuh"

namespace octet {

// The steps of 16 keys that one warp makes of a task: from key `first` on, the cursor's kStride apart, below `end`.
struct WarpKeys {
  int first, end;
};

// Where a warp's copies stand: the next step to be fetched, a ring's length ahead of the one that is computed.
template <class S, class Cursor>
class Fetcher {
 public:
  __device__ Fetcher(const AttentionInput& in, const Cursor& first, uint32_t ring)
      : in_(in), cursor_(first), ring_(ring), block_shift_(log2_of(in.block_size)) {
    find_step(true);
  }

  // Whether the next step, if any, has only keys below `end` of sequence `sequence`.
  __device__ bool next_is_below(int sequence, int end) const {
    return cursor_.done() || (cursor_.sequence() == sequence && key_ + kStepKeys <= end);
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
      key_ += Cursor::kStride;
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
        const WarpKeys keys = cursor_.keys();
        key_ = keys.first;
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
__device__ void add_keys(const AttentionInput& in, const SequenceView& view, const WarpKeys& keys,
                         const Queries<S>& queries, uint32_t ring, int& stage, Fetcher<S, Cursor>& fetcher,
                         Softmax<S>& softmax, Patch patch) {
  for (int key = keys.first; key < keys.end; key += Cursor::kStride) {
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

}  // namespace octet
