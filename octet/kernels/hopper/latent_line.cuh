// How latent attention shares a batch among its CTAs. A unit is 64 rows of (new tokens x heads) of one sequence; the
// steps of 64 keys of all units lie on a line one after the other, and each CTA takes an equal stretch of it. A
// sequence's row blocks lie on the line as first, last, second, last but one ...: the first see the fewest keys, the
// last the most, and so every stretch of a prompt has as much work.
//
// A unit that lies in one stretch is written at once. What several CTAs have of a unit they leave in the workspace,
// each at most of two units: of the one that its stretch begins within, and of the one that it ends within.
#pragma once

#include "octet/kernels/hopper/attention_plan.cuh"
#include "octet/ops/op.h"

namespace octet {

inline constexpr int kLatentDim = 512;     // of the latent, which is also the value
inline constexpr int kLatentKeyDim = 576;  // with the rotated key
inline constexpr int kLatentRows = 64;
inline constexpr int kLatentKeys = 64;
inline constexpr int kLatentThreads = 384;
inline constexpr int kLatentMaxSequences = 4096;

// The unit that goes on beyond the end of a CTA's stretch; sequence -1: there is none.
struct SplitUnit {
  int sequence, row_block;
  int first_cta, last_cta;  // that have a part of it
};
inline constexpr SplitUnit kNoSplitUnit{.sequence = -1, .row_block = 0, .first_cta = 0, .last_cta = 0};

// In the workspace: partial result 2 c is of the unit that CTA c began within, 2 c + 1 of the one it ended within.
struct LatentPartials {
  SplitUnit* units;  // [CTAs]
  float2* softmax;   // [slot, row]: highest score as a logarithm to base 2, sum of weights
  float* sums;       // [slot, row, kLatentDim]
};
inline constexpr int64_t kLatentUnitBytes = 4096;

inline int64_t latent_partial_bytes(int64_t num_ctas) {
  constexpr int64_t kSlotBytes = kLatentRows * (kLatentDim * int64_t{sizeof(float)} + int64_t{sizeof(float2)});
  return kLatentUnitBytes + 2 * num_ctas * kSlotBytes;
}
inline LatentPartials latent_partials_in(const Workspace& workspace, int64_t num_ctas) {
  std::byte* const sums = workspace.data + kLatentUnitBytes;
  return {.units = reinterpret_cast<SplitUnit*>(workspace.data),
          .softmax = reinterpret_cast<float2*>(sums + 2 * num_ctas * kLatentRows * kLatentDim * int64_t{sizeof(float)}),
          .sums = reinterpret_cast<float*>(sums)};
}

__device__ inline int latent_row_blocks(const AttentionInput& in, const SequenceView& view) {
  return (view.num_rows * in.num_heads + kLatentRows - 1) / kLatentRows;
}

struct LatentLine : SequenceLine<kLatentThreads, kLatentMaxSequences> {
  __device__ void make(const AttentionInput& in) {
    this->lay_out(in.num_sequences, [&](int s) {
      const SequenceView view(in, s);
      if (view.num_rows <= 0) return int2{0, 0};
      return int2{view.num_pieces(kLatentKeys) * latent_row_blocks(in, view), 0};
    });
  }
  __device__ int length(const AttentionInput& in) const { return this->line_start[in.num_sequences]; }
};

// The stretch of one CTA: of every CTA `share` points, less at the end of the line.
struct LatentStretch {
  int begin, end, share;
  int sequence, sequence_start;  // of the first point, and where that sequence starts on the line
};

// The CTA's part of one unit: its steps [first, end) of 64 keys, one at least.
struct LatentPiece {
  SequenceView view;
  int sequence, row_block;
  int first, end;
  int seen;                 // steps that some row of the unit sees
  int first_cta, last_cta;  // that have a part of the unit
  __device__ bool begins() const { return first == 0; }
  __device__ bool ends() const { return end == seen; }
};

class LatentCursor {
 public:
  // `stretch` is not empty.
  __device__ LatentCursor(const AttentionInput& in, const LatentStretch& stretch)
      : in_(in), stretch_(stretch), x_(stretch.begin), sequence_(stretch.sequence), view_(in, sequence_) {
    measure();
    index_ = (x_ - stretch.sequence_start) / steps_;
    unit_begin_ = stretch.sequence_start + index_ * steps_;
    skip_unseen();
  }

  __device__ bool done() const { return x_ >= stretch_.end; }
  // One after the last key that a row of the unit sees.
  __device__ int end_key() const {
    const int last = min((row_block() + 1) * kLatentRows, view_.num_rows * in_.num_heads) - 1;
    return view_.seq_len - view_.num_rows + last / in_.num_heads + 1;
  }
  __device__ LatentPiece piece() const {
    return {.view = view_,
            .sequence = sequence_,
            .row_block = row_block(),
            .first = x_ - unit_begin_,
            .end = min(stretch_.end - unit_begin_, seen()),
            .seen = seen(),
            .first_cta = unit_begin_ / stretch_.share,
            .last_cta = (unit_begin_ + seen() - 1) / stretch_.share};
  }
  __device__ void next() {
    next_unit();
    skip_unseen();
  }

 private:
  __device__ int seen() const { return (end_key() + kLatentKeys - 1) / kLatentKeys; }
  __device__ int row_block() const { return index_ % 2 == 0 ? index_ / 2 : row_blocks_ - 1 - index_ / 2; }
  __device__ void measure() {
    steps_ = view_.num_pieces(kLatentKeys);
    row_blocks_ = latent_row_blocks(in_, view_);
  }
  __device__ void next_unit() {
    x_ = unit_begin_ += steps_;
    if (done() || ++index_ < row_blocks_) return;
    do {
      view_ = SequenceView(in_, ++sequence_);
    } while (view_.num_rows <= 0);
    index_ = 0;
    measure();
  }
  // Past units of which only steps that no row sees are in the stretch.
  __device__ void skip_unseen() {
    while (!done() && x_ - unit_begin_ >= seen()) next_unit();
  }

  const AttentionInput& in_;
  const LatentStretch& stretch_;
  int x_;
  int sequence_;
  SequenceView view_;
  int steps_, row_blocks_, index_, unit_begin_;
};

}  // namespace octet
