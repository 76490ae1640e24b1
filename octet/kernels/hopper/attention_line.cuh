// How attention_decode shares a batch among its warps. The steps of 16 keys of every (sequence, KV head, block of query
// rows) - a unit - lie on a line one after the other, and each warp of the grid takes an equal stretch of it: all
// finish together whatever the lengths are. Before its steps every unit has kUnitCost points at which nothing is added:
// to load its queries and write its result takes a warp as long. Without them one warp would get all of a batch's short
// units, such as the rows that fill up a recorded step. A unit that several warps have a part of is the sum of their
// partial results, in the order of the line. So where a row's keys are cut, and with it its rounding, depends on the
// batch.
//
// Along the line either the unit or the warp changes from one partial result to the next, so that unit + warp numbers
// them without gaps that matter: that is their slot, and nobody needs a table of them.
#pragma once

#include "octet/kernels/hopper/attention_stream.cuh"

namespace octet {

inline constexpr int kMaxSequences = 1024;
inline constexpr int kUnitCost = 3;  // measured: 226 sequences of 2,100 and 30 rows that fill up a step

// What decode leaves in the workspace for combine; partial results follow.
struct PartialHeader {
  int share;  // of the line, of a warp
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
  static constexpr int kLeastShare = 4;    // of fewer steps the partial results cost more than they bring
  static_assert(kLeastShare > kUnitCost);  // so that every stretch has a step

  // Sequences of more than max_rows rows are left to another kernel.
  __device__ void make(const AttentionInput& in, int max_rows) {
    this->lay_out(in.num_sequences, [&](int s) {
      const SequenceView view(in, s);
      if (view.num_rows <= 0 || view.num_rows > max_rows) return int2{0, 0};
      const int units = in.num_kv_heads * row_blocks_of(in, view, kRows);
      return int2{(kUnitCost + view.num_pieces(kStepKeys)) * units, units};
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
    const int length = kUnitCost + steps_;
    head_block_ = (x - line.line_start[sequence_]) / length;
    first_step_ = line.line_start[sequence_] + head_block_ * length + kUnitCost;
    x_ = max(x_, first_step_);
  }

  __device__ bool done() const { return x_ >= stop_; }
  __device__ int sequence() const { return sequence_; }
  __device__ const SequenceView& view() const { return view_; }
  __device__ int kv_head() const { return row_blocks_ == 1 ? head_block_ : head_block_ / row_blocks_; }
  __device__ int first_row() const { return row_blocks_ == 1 ? 0 : head_block_ % row_blocks_ * kRows; }
  __device__ int unit() const { return line_.slot_start[sequence_] + head_block_; }
  __device__ WarpKeys keys() const {
    const int base = view_.begin / kStepKeys - first_step_;
    return {.first = (base + x_) * kStepKeys,
            .end = min((base + min(stop_, first_step_ + steps_)) * kStepKeys, view_.seq_len)};
  }

  __device__ void next() {
    const int end = first_step_ + steps_;
    x_ = first_step_ = end + kUnitCost;
    if (done()) return;
    if (end < line_.line_start[sequence_ + 1]) {
      ++head_block_;
    } else {
      sequence_ = line_.first_sequence(in_.num_sequences, sequence_ + 1);
      view_ = SequenceView(in_, sequence_);
      head_block_ = 0;
      measure();
    }
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
  int steps_, row_blocks_, head_block_;
  int first_step_;  // of the unit, on the line
};

}  // namespace octet
