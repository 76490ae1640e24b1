// How rope_attention_decode shares a decode step among its clusters: each CTA of a cluster has KV heads of its own, so
// a task is (sequence, split) and a cluster has whole rows of the result. Splits lie at fixed positions, finer near the
// start: [0, 1024) into 256s, then to 32768 into 512s, beyond into 1024s. One long sequence alone then still has work
// for every SM, partial results are few bytes, and a row's bits do not depend on the batch. Only sequences of several
// splits have slots.
//
// Should the slots not fit the workspace, all splits of the batch are doubled until they do; then, and only then, bits
// depend on the batch.
#pragma once

#include "octet/kernels/hopper/attention_stream.cuh"

namespace octet {

// More are faster in parts: measured in whole steps of 16 to 128 sequences, which lose 1 to 20 %.
inline constexpr int kMaxDecodeSequences = 8;
inline constexpr int kRoundKeys = 64;  // unit of the line
inline constexpr int kTaskRounds = 1;  // what a task costs besides its keys

// Split i of keys, all sizes times 2^shift.
struct Splits {
  static constexpr int kCoarse = 32768;  // where 512s end and 1024s begin
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

  // Those of a sequence's keys.
  __device__ int first(const SequenceView& view) const { return of(view.begin); }
  __device__ int end(const SequenceView& view) const { return of(view.seq_len - 1) + 1; }
  __device__ int count(const SequenceView& view) const { return end(view) - first(view); }
};

struct RowTask {
  int sequence, split;
  __device__ bool operator==(const RowTask&) const = default;
};

struct RowPlan : SequenceLine<kSplitThreads, kMaxDecodeSequences> {
  Splits splits;

  // Every sequence has one new token: its row.
  __device__ static SequenceView view_of(const AttentionInput& in, int s) { return {in, s, s + 1, in.seq_lens[s]}; }

  // Where on its sequence's stretch of the line a split starts.
  __device__ int start_of(const SequenceView& view, int split) const {
    const int before = split - splits.first(view);
    return before == 0 ? 0 : splits.begin(split) / kRoundKeys - view.begin / kRoundKeys + before * kTaskRounds;
  }

  __device__ void make(const AttentionInput& in, int num_slots) {
    for (int shift = 0;; ++shift) {
      __syncthreads();
      if (threadIdx.x == 0) splits.shift = shift;
      __syncthreads();
      lay_out(in.num_sequences, [&](int s) {
        const SequenceView view = view_of(in, s);
        if (view.seq_len <= 0) return int2{0, 0};
        const int num_splits = splits.count(view);
        return int2{view.num_pieces(kRoundKeys) + num_splits * kTaskRounds, num_splits > 1 ? num_splits : 0};
      });
      if (slot_start[in.num_sequences] <= num_slots || shift == 16) return;
    }
  }

  // Where part `share` of num_shares equal parts of the line starts.
  __device__ int share_start(int num_sequences, int share, int num_shares) const {
    const int length = line_start[num_sequences];
    return length / num_shares * share + length % num_shares * share / num_shares;
  }

  __device__ RowTask first_from(const AttentionInput& in, int s) const {
    s = first_sequence(in.num_sequences, s);
    return {s, s < in.num_sequences ? splits.first(view_of(in, s)) : 0};
  }

  // The first task that starts at or after point x of the line.
  __device__ RowTask at(const AttentionInput& in, int x) const {
    const int s = sequence_at(in.num_sequences, x);
    if (x >= line_start[s + 1]) return first_from(in, s + 1);
    const SequenceView view = view_of(in, s);
    const int end = splits.end(view);
    int low = splits.first(view);
    for (int high = end; low < high;) {
      const int middle = (low + high) / 2;
      if (start_of(view, middle) >= x - line_start[s]) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low == end ? first_from(in, s + 1) : RowTask{s, low};
  }

  // The tasks of one of num_shares equal parts of the line: from `first` until `stop`. Whole warps call it: even lanes
  // look for one end, odd lanes for the other.
  __device__ void find_share(const AttentionInput& in, int share, int num_shares, RowTask& first, RowTask& stop) const {
    const int point = share + static_cast<int>(threadIdx.x) % 2;
    const RowTask found = at(in, share_start(in.num_sequences, point, num_shares));
    first = {__shfl_sync(0xffffffffu, found.sequence, 0), __shfl_sync(0xffffffffu, found.split, 0)};
    stop = {__shfl_sync(0xffffffffu, found.sequence, 1), __shfl_sync(0xffffffffu, found.split, 1)};
  }
};

// The tasks of a cluster, one after the other; each is as many passes as a CTA of it has KV heads.
class RowCursor {
 public:
  static constexpr int kStride = kSplitWarps * kStepKeys;

  __device__ RowCursor(const AttentionInput& in, const RowPlan& plan, const RowTask& first, const RowTask& stop,
                       int rank, int num_ranks)
      : in_(in),
        plan_(plan),
        task_(first),
        stop_(stop),
        seq_len_(in.seq_lens[min(first.sequence, in.num_sequences - 1)]),
        first_split_(first.split),
        kv_head_(rank),
        rank_(rank),
        num_ranks_(num_ranks) {}

  __device__ bool done() const { return task_ == stop_; }
  __device__ int sequence() const { return task_.sequence; }
  __device__ int kv_head() const { return kv_head_; }
  __device__ SequenceView view() const { return {in_, task_.sequence, task_.sequence + 1, seq_len_}; }
  // A task's steps go round the warps.
  __device__ WarpKeys keys() const {
    const Splits& splits = plan_.splits;
    const SequenceView view = this->view();
    const int key = splits.begin(task_.split) + static_cast<int>(threadIdx.x) / 32 * kStepKeys;
    const int skip = view.begin - (kStepKeys - 1) - key;  // whole steps before the first key that is seen
    return {.first = skip > 0 ? key + (skip + kStride - 1) / kStride * kStride : key,
            .end = min(splits.begin(task_.split + 1), view.seq_len)};
  }
  __device__ int num_splits() const { return plan_.splits.count(view()); }
  __device__ bool is_last_split() const { return task_.split + 1 == plan_.splits.end(view()); }
  // Of the sequence's first split.
  __device__ int64_t first_slot() const { return plan_.slot_start[task_.sequence]; }
  __device__ int64_t slot() const { return first_slot() + task_.split - plan_.splits.first(view()); }
  // How many splits of the sequence the cluster has made, this one with them.
  __device__ int splits_made() const { return task_.split - first_split_ + 1; }
  // Whether new rows made now are those that go to the cache: the sequence's last split is among the cluster's. With
  // one KV head a CTA they serve all its splits of the sequence, else every task makes its own.
  __device__ bool writes_new_token() const {
    return stop_.sequence != task_.sequence && (num_ranks_ == in_.num_kv_heads || is_last_split());
  }
  __device__ int pass() const { return num_ranks_ == in_.num_kv_heads ? 0 : kv_head_ / num_ranks_; }
  __device__ bool ends_sequence() const {
    return kv_head_ + num_ranks_ >= in_.num_kv_heads &&
           (is_last_split() || RowTask{task_.sequence, task_.split + 1} == stop_);
  }

  __device__ void next() {
    kv_head_ += num_ranks_;
    if (kv_head_ < in_.num_kv_heads) return;
    kv_head_ = rank_;
    if (!is_last_split()) {
      ++task_.split;
      return;
    }
    task_ = plan_.first_from(in_, task_.sequence + 1);
    first_split_ = task_.split;
    if (task_.sequence < in_.num_sequences) seq_len_ = in_.seq_lens[task_.sequence];
  }

 private:
  const AttentionInput& in_;
  const RowPlan& plan_;
  RowTask task_;
  RowTask stop_;
  int seq_len_;
  int first_split_;  // the cluster's first of the sequence
  int kv_head_, rank_, num_ranks_;
};

}  // namespace octet
