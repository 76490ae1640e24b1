// How attention_decode shares a batch among its warps. The steps of 16 keys of every (sequence, KV head, block of query
// rows) - a unit - lie on a line one after the other, and each warp of the grid takes an equal stretch of it: all
// finish together whatever the lengths are. A unit that several warps have a part of is the sum of their partial
// results, in the order of the line. So where a row's keys are cut, and with it its rounding, depends on the batch.
//
// Along the line either the unit or the warp changes from one partial result to the next, so that unit + warp numbers
// them without gaps that matter: that is their slot, and nobody needs a table of them.
#pragma once

#include "octet/kernels/hopper/attention_stream.cuh"

namespace octet {

inline constexpr int kMaxSequences = 1024;

// What decode leaves in the workspace for combine; partial results follow.
struct PartialHeader {
  int share;  // steps of a warp
  int line_start[kMaxSequences];
  int unit_start[kMaxSequences];
};
struct Partials {
  PartialHeader* header;
  float2* softmax;  // [slot, column]: highest score, sum of weights
  float* sums;      // [slot, column, D]
  int num_slots;
};

inline Partials partials_in(const Workspace& workspace, int64_t columns, int64_t head_dim) {
  constexpr int64_t kHeaderBytes = (sizeof(PartialHeader) + 255) / 256 * 256;
  const int64_t sum_bytes = columns * head_dim * int64_t{sizeof(float)};
  const int64_t slots =
      std::max<int64_t>(0, workspace.num_bytes - kHeaderBytes) / (sum_bytes + columns * int64_t{sizeof(float2)});
  std::byte* const sums = workspace.data + kHeaderBytes;
  return {.header = reinterpret_cast<PartialHeader*>(workspace.data),
          .softmax = reinterpret_cast<float2*>(sums + slots * sum_bytes),
          .sums = reinterpret_cast<float*>(sums),
          .num_slots = static_cast<int>(std::min<int64_t>(slots, 1 << 30))};
}

// The units of a sequence, each of kRows rows of (new tokens x heads of the group) at most.
__device__ inline int row_blocks_of(const AttentionInput& in, const SequenceView& view, int rows) {
  return (view.num_rows * in.group + rows - 1) / rows;
}

template <int kRows>
struct StepLine : SequenceLine<kSplitThreads, kMaxSequences> {
  static constexpr int kLeastShare = 4;  // of fewer steps the partial results cost more than they bring

  // Sequences of more than max_rows rows are left to another kernel.
  __device__ void make(const AttentionInput& in, int max_rows) {
    this->lay_out(in.num_sequences, [&](int s) {
      const SequenceView view(in, s);
      if (view.num_rows <= 0 || view.num_rows > max_rows) return int2{0, 0};
      const int units = in.num_kv_heads * row_blocks_of(in, view, kRows);
      return int2{view.num_pieces(kStepKeys) * units, units};
    });
  }
  __device__ int length(const AttentionInput& in) const { return this->line_start[in.num_sequences]; }
  __device__ int share(const AttentionInput& in, int num_warps) const {
    return max(kLeastShare, (length(in) + num_warps - 1) / num_warps);
  }
};

// The stretches of units that one warp makes, one after the other.
template <int kRows>
class LineCursor {
 public:
  using Line = StepLine<kRows>;
  static constexpr int kStride = kStepKeys;

  // From point x of the line, which is on it, until `stop`.
  __device__ LineCursor(const AttentionInput& in, const Line& line, int x, int stop)
      : in_(in),
        line_(line),
        x_(x),
        stop_(stop),
        sequence_(line.sequence_at(in.num_sequences, x)),
        view_(in, sequence_) {
    measure();
    head_block_ = (x - line.line_start[sequence_]) / steps_;
    unit_begin_ = line.line_start[sequence_] + head_block_ * steps_;
  }

  __device__ bool done() const { return x_ >= stop_; }
  __device__ int sequence() const { return sequence_; }
  __device__ const SequenceView& view() const { return view_; }
  __device__ int kv_head() const { return row_blocks_ == 1 ? head_block_ : head_block_ / row_blocks_; }
  __device__ int first_row() const { return row_blocks_ == 1 ? 0 : head_block_ % row_blocks_ * kRows; }
  __device__ int unit() const { return line_.slot_start[sequence_] + head_block_; }
  __device__ WarpKeys keys() const {
    const int base = view_.begin / kStepKeys - unit_begin_;
    return {.first = (base + x_) * kStepKeys,
            .end = min((base + min(stop_, unit_begin_ + steps_)) * kStepKeys, view_.seq_len)};
  }

  __device__ void next() {
    x_ = unit_begin_ += steps_;
    if (done()) return;
    if (x_ < line_.line_start[sequence_ + 1]) {
      ++head_block_;
      return;
    }
    sequence_ = line_.first_sequence(in_.num_sequences, sequence_ + 1);
    view_ = SequenceView(in_, sequence_);
    head_block_ = 0;
    measure();
  }

 private:
  __device__ void measure() {
    steps_ = view_.num_pieces(kStepKeys);
    row_blocks_ = row_blocks_of(in_, view_, kRows);
  }

  const AttentionInput& in_;
  const Line& line_;
  int x_, stop_;
  int sequence_;
  SequenceView view_;
  int steps_, row_blocks_, head_block_, unit_begin_;
};

}  // namespace octet
