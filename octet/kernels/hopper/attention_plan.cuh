// How attention_decode shares a batch among its CTAs: a fixed grid, cut on the device from seq_lens, so that a recorded
// graph serves all lengths.
//
// Keys are cut into splits at fixed positions, finer near the start: [0, 1024) into 256s, then to 4096 into 512s,
// beyond into 1024s: one long sequence alone then still has work for every SM, and partial results are few bytes. A
// task is (sequence, KV head,
// block of query rows, split); its result depends on nothing else, so a row's bits do not depend on the batch. Tasks
// are laid in a line, each as long as its keys; CTA c of n takes those that start in the c-th n-th of the line.
//
// Should the partial results not fit the workspace (Hq 32, D 128: some 2 million keys in 64 MiB), all splits of the
// batch are doubled until they do; then, and only then, bits depend on the batch.
#pragma once

#include "octet/kernels/cuda/attention_row.cuh"

namespace octet {

inline constexpr int kMaxSequences = 1024;
inline constexpr int kCoarseFrom = 4096;
inline constexpr int kRoundKeys = 64;  // unit of a task's length

// Split i of keys, all sizes times 2^shift.
template <int kCoarse>  // where 512s end and 1024s begin
struct SplitsOf {
  static constexpr int kFirstCoarse = 2 + kCoarse / 512;
  int shift;

  __device__ int begin(int i) const {
    int key = i * 256;
    if (i > 4) key = 1024 + (i - 4) * 512;
    if (i > kFirstCoarse) key = kCoarse + (i - kFirstCoarse) * 1024;
    return key << shift;
  }
  __device__ int of(int key) const {
    key >>= shift;
    if (key < 1024) return key / 256;
    if (key < kCoarse) return 4 + (key - 1024) / 512;
    return kFirstCoarse + (key - kCoarse) / 1024;
  }
};

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
  __device__ int num_rounds() const { return (seq_len + kRoundKeys - 1) / kRoundKeys - begin / kRoundKeys; }
  template <class Splits>
  __device__ int first_split(Splits splits) const {
    return splits.of(begin);
  }
  template <class Splits>
  __device__ int end_split(Splits splits) const {
    return splits.of(seq_len - 1) + 1;
  }
  template <class Splits>
  __device__ int num_splits(Splits splits) const {
    return end_split(splits) - first_split(splits);
  }
};

// What decode leaves in the workspace for combine; partial results follow. Slot (sequence, row i, split) is
// slot_start[sequence] + i * num_splits + split - first_split.
struct PartialHeader {
  int shift;
  int slot_start[kMaxSequences];
};
struct Partials {
  PartialHeader* header;
  float2* softmax;  // [slot, Hq]: highest score, sum of weights
  float* sums;      // [slot, Hq, D]
  int num_slots;
};

inline Partials partials_in(const Workspace& workspace, int64_t num_heads, int64_t head_dim) {
  constexpr int64_t kHeaderBytes = (sizeof(PartialHeader) + 255) / 256 * 256;
  const int64_t row_floats = num_heads * head_dim;
  const int64_t slots = std::max<int64_t>(0, workspace.num_bytes - kHeaderBytes - 256) /
                        (row_floats * int64_t{sizeof(float)} + num_heads * int64_t{sizeof(float2)});
  std::byte* const sums = workspace.data + kHeaderBytes;
  return {.header = reinterpret_cast<PartialHeader*>(workspace.data),
          .softmax = reinterpret_cast<float2*>(sums + slots * row_floats * int64_t{sizeof(float)}),
          .sums = reinterpret_cast<float*>(sums),
          .num_slots = static_cast<int>(std::min<int64_t>(slots, 1 << 30))};
}

struct Task {
  int sequence, head_block, split;  // head_block: KV head * row blocks + row block
  __device__ bool operator==(const Task&) const = default;
};

// The batch as a line on which every sequence has a stretch, and its slots for partial results; in shared memory, made
// by all threads of the CTA together.
template <int kThreads, int kSequences, int kCoarse>
struct SequenceLine {
  static constexpr int kWarps = kThreads / 32;

  int line_start[kSequences + 1];  // where each sequence starts on the line
  int slot_start[kSequences + 1];
  int2 of_warps[kWarps];
  SplitsOf<kCoarse> splits;

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

  // size_of(s): length on the line and slots of sequence s under `splits`; 0 and 0 where it has no tasks.
  template <class SizeOf>
  __device__ void lay_out(int num_sequences, int num_slots, SizeOf size_of) {
    for (int shift = 0;; ++shift) {
      int2 carry{0, 0};
      if (threadIdx.x == 0) splits.shift = shift;
      __syncthreads();
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
      if (carry.y <= num_slots || shift == 16) return;
    }
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
  // Where part `share` of num_shares equal parts of the line starts.
  __device__ int share_start(int num_sequences, int share, int num_shares) const {
    const int length = line_start[num_sequences];
    return length / num_shares * share + length % num_shares * share / num_shares;
  }
};

// The batch as a line of tasks. A task has kRows rows of (new tokens x heads of the group).
template <int kThreads, int kRows>
struct Plan : SequenceLine<kThreads, kMaxSequences, kCoarseFrom> {
  using Line = SequenceLine<kThreads, kMaxSequences, kCoarseFrom>;
  using Line::line_start, Line::slot_start, Line::splits;

  __device__ static int row_blocks(const AttentionInput& in, const SequenceView& view) {
    return (view.num_rows * in.group + kRows - 1) / kRows;
  }

  // Sequences of more than max_rows rows are left to another kernel.
  __device__ void make(const AttentionInput& in, int max_rows, int num_slots) {
    this->lay_out(in.num_sequences, num_slots, [&](int s) {
      const SequenceView view(in, s);
      if (view.num_rows <= 0 || view.num_rows > max_rows) return int2{0, 0};
      return int2{view.num_rounds() * in.num_kv_heads * row_blocks(in, view), view.num_rows * view.num_splits(splits)};
    });
  }

  // The first task of the first sequence from s on that has any.
  __device__ Task first_from(const AttentionInput& in, int s) const {
    s = this->first_sequence(in.num_sequences, s);
    if (s >= in.num_sequences) return {in.num_sequences, 0, 0};
    return {s, 0, SequenceView(in, s).first_split(splits)};
  }

  __device__ Task after(const AttentionInput& in, const Task& task, const SequenceView& view) const {
    if (task.split + 1 < view.end_split(splits)) return {task.sequence, task.head_block, task.split + 1};
    if (task.head_block + 1 < in.num_kv_heads * row_blocks(in, view))
      return {task.sequence, task.head_block + 1, view.first_split(splits)};
    return first_from(in, task.sequence + 1);
  }

  // The first task that starts at or after point x of the line.
  __device__ Task at(const AttentionInput& in, int x) const {
    const int low = this->sequence_at(in.num_sequences, x);
    if (x >= line_start[low + 1]) return first_from(in, low + 1);
    const SequenceView view(in, low);
    const int offset = x - line_start[low];
    const int round = offset % view.num_rounds();
    const int key = (view.begin / kRoundKeys + round) * kRoundKeys;
    const Task task{low, offset / view.num_rounds(), splits.of(max(key, view.begin))};
    const bool starts_here = round == 0 || splits.begin(task.split) == key;
    return starts_here ? task : after(in, task, view);
  }

  // The tasks of one of num_shares equal parts of the line: from `first` until `stop`. Whole warps call it.
  __device__ void find_share(const AttentionInput& in, int share, int num_shares, Task& first, Task& stop) const {
    const int point =
        share + static_cast<int>(threadIdx.x) % 2;  // even lanes look for one end, odd lanes for the other
    const Task found = at(in, this->share_start(in.num_sequences, point, num_shares));
    first = {__shfl_sync(0xffffffffu, found.sequence, 0), __shfl_sync(0xffffffffu, found.head_block, 0),
             __shfl_sync(0xffffffffu, found.split, 0)};
    stop = {__shfl_sync(0xffffffffu, found.sequence, 1), __shfl_sync(0xffffffffu, found.head_block, 1),
            __shfl_sync(0xffffffffu, found.split, 1)};
  }
};

}  // namespace octet
