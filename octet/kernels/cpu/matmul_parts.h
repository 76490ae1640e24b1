// What the matrix products of this folder share and what needs no vectors. Plain code, included before any target
// pragma.
#pragma once

#include <algorithm>
#include <cstdint>

#include "octet/kernels/cpu/split.h"
#include "octet/ops/ops.h"

namespace octet {

struct MatmulConfig {
  static constexpr int64_t kMostDirectTokens = 4;
  static constexpr int64_t kMostRowTokens =
      47;  // beyond, transposed panels are faster (measured: 32 slower, 64 faster)
  static constexpr int64_t kDirectBytes = 32 << 10;  // of weights that a thread takes at a time: few tokens
  static constexpr int64_t kPrefetchBytes = 2048;    // beyond the rows after these
  static constexpr int64_t kMaxChunk = 1536;         // columns of a panel: a residue of it and a tile's x stay in L1
  static constexpr int64_t kMaxStaged = 256;         // tokens of x packed at once
  static constexpr int kTileVectors = 3;             // of rows
  static constexpr int kTileTokens = 4;
};

// Floats from row to row of a staged matrix of num_columns: an odd number of cache lines, so that rows side by side do
// not fall into the same sets of L1.
constexpr int64_t staged_stride(int64_t num_columns) {
  constexpr int64_t kLine = 64 / sizeof(float);
  return ((num_columns + kLine - 1) / kLine | 1) * kLine;
}

// Scales of groups and blocks of a weight: those of `rows` rows lie side by side, one per `cols` columns.
struct GroupScales {
  const float* scale;
  int64_t rows, cols, per_row;

  [[gnu::always_inline]] const float* of_row(int64_t n) const { return scale + n / rows * per_row; }
};

// What is left to do to a sum.
struct OutputScales {
  const float* x_scale;  // per token (x_scale_step 1), one (0)
  int64_t x_scale_step;
  const float* w_scale;
  int64_t w_scale_step;
  const float* bias;  // or null

  [[gnu::always_inline]] float finish(float sum, int64_t token, int64_t n) const {
    const float value = sum * (x_scale[token * x_scale_step] * w_scale[n * w_scale_step]);
    return bias ? value + bias[n] : value;
  }
};

// The scales of tokens from `first` on; groups' and blocks' are applied elsewhere.
inline OutputScales output_scales(const MatmulOp& op, int64_t first) {
  static constexpr float kOne = 1.0f;
  const Granularity x = op.x.format.granularity, w = op.weight.format.granularity;
  OutputScales scales{.x_scale = &kOne, .x_scale_step = 0, .w_scale = &kOne, .w_scale_step = 0, .bias = nullptr};
  if (x == Granularity::kTensor) scales.x_scale = op.x.scale.data<float>();
  if (x == Granularity::kToken) scales = {op.x.scale.data<float>() + first, 1, &kOne, 0, nullptr};
  if (w == Granularity::kTensor || w == Granularity::kChannel) scales.w_scale = op.weight.scale.data<float>();
  scales.w_scale_step = w == Granularity::kChannel ? 1 : 0;
  if (op.bias) scales.bias = op.bias.data<float>();
  return scales;
}

inline GroupScales group_scales(const ConstQuantTensor& weight) {
  const Granularity g = weight.format.granularity;
  if (g != Granularity::kGroup && g != Granularity::kBlock) return {};
  return {.scale = weight.scale.data<float>(),
          .rows = g == Granularity::kBlock ? weight.format.group_rows : 1,
          .cols = weight.format.group_cols,
          .per_row = weight.scale.dim(1)};
}

// R rows advance together, which no hardware prefetcher follows: rows of 576 bytes end before it locks on. So each step
// fetches as many bytes as it reads, from the next R rows in memory order (`next`) and some lines on.
template <int kElements, class W>
[[gnu::always_inline]] inline void prefetch_rows(const W* next) {
  constexpr int kStepBytes = kElements * static_cast<int>(sizeof(W));
  for (int i = 0; i < std::max(1, kStepBytes / 64); ++i) {
    __builtin_prefetch(reinterpret_cast<const char*>(next) + MatmulConfig::kPrefetchBytes + 64 * i);
  }
}

// The weights of the panel after this one, on their way to L2 while this one is multiplied: a few lines with each tile,
// so that neither the memory nor the multiplication waits for the other.
class NextPanel {
 public:
  NextPanel(const void* rows, int64_t num_bytes, int64_t num_tiles)
      : next_(static_cast<const char*>(rows)),
        end_(next_ + num_bytes),
        step_((num_bytes / num_tiles + kLine - 1) / kLine * kLine) {}
  void fetch_some() {
    const char* until = std::min(end_, next_ + step_);
    for (; next_ < until; next_ += kLine) __builtin_prefetch(next_, 0, 2);
  }

 private:
  static constexpr int64_t kLine = 64;
  const char* next_;
  const char* end_;
  int64_t step_;
};

// Rows that a thread takes at a time while there are few tokens: whole direct tiles.
inline int64_t direct_grain(const MatmulOp& op) {
  constexpr int64_t kMostRows = 8;
  const int64_t row_bytes = op.weight.data.dim(1) * dtype_bytes(op.weight.data.dtype);
  return std::max<int64_t>(1, MatmulConfig::kDirectBytes / std::max<int64_t>(row_bytes * kMostRows, 1)) * kMostRows;
}

// The share of the weight that each thread will begin with, for those that wait for it.
inline const ReadAhead::Matrix* begin_read_ahead(const MatmulOp& op, const Launch& launch, int64_t grain) {
  if (!launch.read_ahead) return nullptr;
  const std::byte* weight = op.weight.data.bytes;
  const int64_t num_n = op.weight.data.dim(0);
  const int64_t row_bytes = op.weight.data.dim(1) * dtype_bytes(op.weight.data.dtype);
  const int num_threads = launch.threads->num_threads();
  return launch.read_ahead->begin(weight, [&](int thread) {
    const auto [begin, end] = share_of(num_n, grain, thread, num_threads);
    return ReadAhead::Share{weight + begin * row_bytes, weight + end * row_bytes};
  });
}

}  // namespace octet
