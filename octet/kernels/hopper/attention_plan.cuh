// A batch as split attention sees it: its sequences, and a line on which they lie one after the other, so that it can
// be cut into equal parts on the device and a recorded graph serves all lengths.
#pragma once

#include "octet/kernels/cuda/attention_row.cuh"

namespace octet {

// One sequence as attention sees it.
struct SequenceView {
  int first_row, num_rows;  // of q
  int seq_len;
  int begin;  // first key that any row sees

  __device__ SequenceView(const AttentionInput& in, int s)
      : SequenceView(in, in.query_start[s], in.query_start[s + 1], in.seq_lens[s]) {}
  __device__ SequenceView(const AttentionInput& in, int start, int end, int length)
      : first_row(start), num_rows(end - start), seq_len(length) {
    begin = in.sliding_window > 0 ? max(0, seq_len - num_rows - in.sliding_window + 1) : 0;
  }
  // Pieces of `keys` keys, cut at multiples of it, that hold all keys seen.
  __device__ int num_pieces(int keys) const { return (seq_len + keys - 1) / keys - begin / keys; }
};

// The batch as a line on which every sequence has a stretch, and slots, counted along; in shared memory, made by all
// threads of the CTA together.
template <int kThreads, int kSequences>
struct SequenceLine {
  static constexpr int kWarps = kThreads / 32;

  int line_start[kSequences + 1];  // where each sequence starts on the line
  int slot_start[kSequences + 1];
  int2 of_warps[kWarps];

  __device__ int2 exclusive_scan(int2 value, int2* total) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    int2 sum = value;
    for (int step = 1; step < 32; step *= 2) {
      const int2 other{__shfl_up_sync(0xffffffffu, sum.x, step), __shfl_up_sync(0xffffffffu, sum.y, step)};
      if (lane >= step) sum = {sum.x + other.x, sum.y + other.y};
    }
    __syncthreads();  // of_warps may still be read
    if (lane == 31) of_warps[warp] = sum;
    __syncthreads();
    int2 before{0, 0};
    *total = {0, 0};
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before = *total;
      *total = {total->x + of_warps[w].x, total->y + of_warps[w].y};
    }
    return {before.x + sum.x - value.x, before.y + sum.y - value.y};
  }

  // size_of(s): length on the line and slots of sequence s; 0 and 0 where it has no tasks.
  template <class SizeOf>
  __device__ void lay_out(int num_sequences, SizeOf size_of) {
    int2 carry{0, 0};
    for (int base = 0; base < num_sequences; base += kThreads) {
      const int s = base + static_cast<int>(threadIdx.x);
      int2 total;
      const int2 start = exclusive_scan(s < num_sequences ? size_of(s) : int2{0, 0}, &total);
      if (s < num_sequences) {
        line_start[s] = carry.x + start.x;
        slot_start[s] = carry.y + start.y;
      }
      carry = {carry.x + total.x, carry.y + total.y};
    }
    if (threadIdx.x == 0) {
      line_start[num_sequences] = carry.x;
      slot_start[num_sequences] = carry.y;
    }
    __syncthreads();
  }

  __device__ bool has(int s) const { return line_start[s + 1] > line_start[s]; }
  // The first sequence from s on that has tasks.
  __device__ int first_sequence(int num_sequences, int s) const {
    while (s < num_sequences && !has(s)) ++s;
    return s;
  }
  // The last sequence that starts at or before x.
  __device__ int sequence_at(int num_sequences, int x) const {
    int low = 0;
    for (int high = num_sequences; high - low > 1;) {
      const int middle = (low + high) / 2;
      (line_start[middle] <= x ? low : high) = middle;
    }
    return low;
  }
};

}  // namespace octet
