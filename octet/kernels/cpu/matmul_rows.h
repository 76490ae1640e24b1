// Some tokens: a panel of kPanelRows rows is decoded to F32 row by row, once for all tokens, and multiplied tile by
// tile of kTileRows rows and kTileTokens tokens, whose sums are vectors along K. Cheaper to decode than
// matmul_panel.h's panels, dearer to sum up: each output's lanes are added at the end.
#pragma once

#include <algorithm>

#include "octet/kernels/cpu/matmul_direct.h"

namespace octet {

struct RowConfig {
  static constexpr int64_t kStagedBytes = 256 << 10;  // x of a block of tokens, which stays in L2
  static constexpr int64_t kMaxChunk = 640;           // k per pass: 8 tokens' x and 3 rows stay in L1
  static constexpr int64_t kPanelRows = 24;           // rows that a thread takes at a time
  static constexpr int kTileRows = 3;
  static constexpr int kTileTokens = 4;
  static constexpr int64_t kGroupTokens = 8;
};

// The part of K that one pass over a panel covers, and its memory.
struct RowChunk {
  int64_t k_begin;
  int64_t k_end;
  const float* panel;  // F32 weights [rows][stride], zeros behind k_end
  int64_t stride;
  float* sums;                                // accumulators carried between chunks [rows][tokens][kLanes]
  const float* const* group_scale = nullptr;  // of each row, the first group's
};

// Adds columns [k, end) of R rows of the panel times T tokens to `sums`.
template <class V, int R, int T>
[[gnu::always_inline]] inline void add_row_columns(const float* panel, int64_t stride, const float* x, int64_t x_stride,
                                                   int64_t k, int64_t end, typename V::Float (&sums)[R * T]) {
  for (; k < end; k += V::kLanes) {
    typename V::Float w[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) w[r] = V::load(panel + r * stride + k);
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
      const auto a = V::load(x + t * x_stride + k);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r * T + t] = V::fma(w[r], a, sums[r * T + t]);
    }
  }
}

// R rows of the panel times T tokens.
template <class V, int R, int T, class W>
void run_row_tile(const MatmulView<W>& m, const RowChunk& chunk, int64_t row, int64_t n, int64_t token,
                  float* carried) {
  constexpr int kCount = R * T;
  typename V::Float sums[kCount];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) sums[i] = chunk.k_begin == 0 ? V::zero() : V::load(carried + i * V::kLanes);
  const float* panel = chunk.panel + row * chunk.stride;
  const float* x = m.x + token * m.x_stride + chunk.k_begin;
  const int64_t count = chunk.k_end - chunk.k_begin;
  if constexpr (WeightLoad<V, W>::kGrouped) {
    GroupSums<V, R, T> groups(sums);
    for (int r = 0; r < R; ++r) groups.scale[r] = chunk.group_scale[row + r] + chunk.k_begin / m.groups.cols;
    for (int64_t k = 0, index = 0; k < count; k += m.groups.cols, ++index) {
      typename V::Float group[kCount];
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) group[i] = V::zero();
      add_row_columns<V, R, T>(panel, chunk.stride, x, m.x_stride, k, std::min(k + m.groups.cols, count), group);
      groups.add(group, index);
    }
    std::copy_n(groups.sums, kCount, sums);
  } else {
    add_row_columns<V, R, T>(panel, chunk.stride, x, m.x_stride, 0, count, sums);
  }
  if (chunk.k_end < m.num_k) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) V::store(carried + i * V::kLanes, sums[i]);
  } else {
    finish_tile<V, R, T>(m, n + row, token, sums);
  }
}

template <class V, int R, class W>
[[gnu::always_inline]] inline void run_row_tokens(const MatmulView<W>& m, const RowChunk& chunk, int64_t row, int64_t n,
                                                  int64_t token, int64_t count, float* carried) {
  switch (count) {
    case 1:
      return run_row_tile<V, R, 1>(m, chunk, row, n, token, carried);
    case 2:
      return run_row_tile<V, R, 2>(m, chunk, row, n, token, carried);
    case 3:
      return run_row_tile<V, R, 3>(m, chunk, row, n, token, carried);
    default:
      return run_row_tile<V, R, 4>(m, chunk, row, n, token, carried);
  }
}

// Rows n .. n + num_rows of the weight, k of the chunk, as true F32 values.
template <class V, class W>
void decode_rows(const MatmulView<W>& m, int64_t n, int64_t num_rows, const RowChunk& chunk, float* panel) {
  using Load = WeightLoad<V, W>;
  for (int64_t r = 0; r < num_rows; ++r) {
    const W* from = m.weight + (n + r) * m.num_k;
    float* to = panel + r * chunk.stride;
    for (int64_t k = chunk.k_begin; k < chunk.k_end; k += Load::kElements, to += Load::kElements) {
      typename V::Float w[Load::kVectors];
      if (k + Load::kElements <= m.num_k) {
        Load::load(from + k, w);
      } else {
        Load::load_partial(from + k, m.num_k - k, w);
      }
      for (int v = 0; v < Load::kVectors; ++v) {
        if constexpr (Load::kScale != 1.0f) w[v] = V::mul(w[v], V::set(Load::kScale));
        V::store(to + v * V::kLanes, w[v]);
      }
    }
  }
}

// How K and the tokens are cut for many tokens, and the scratch of one thread.
template <class V, class W>
struct RowPlan {
  using Load = WeightLoad<V, W>;
  int64_t padded_k;
  int64_t chunk_k;     // a multiple of Load::kElements
  int64_t stride;      // of the panel's rows
  int64_t num_tokens;  // of a block

  // Chunks are whole groups, of group_cols columns.
  RowPlan(int64_t num_k, int64_t all_tokens, int64_t group_cols) {
    padded_k = Load::padded(num_k);
    const int64_t num_chunks = (padded_k + RowConfig::kMaxChunk - 1) / RowConfig::kMaxChunk;
    chunk_k = Load::padded((padded_k + num_chunks - 1) / num_chunks);
    if (Load::kGrouped) chunk_k = (chunk_k + group_cols - 1) / group_cols * group_cols;
    stride = staged_stride(chunk_k);
    constexpr int64_t kGroup = RowConfig::kGroupTokens;
    const int64_t fitting = RowConfig::kStagedBytes / (padded_k * int64_t{sizeof(float)}) / kGroup * kGroup;
    num_tokens = std::min(all_tokens, std::max<int64_t>(fitting, 2 * kGroup));
  }
  int64_t panel_floats() const { return RowConfig::kPanelRows * stride; }
  int64_t scratch_bytes() const {
    return (panel_floats() + RowConfig::kPanelRows * num_tokens * V::kLanes) * int64_t{sizeof(float)};
  }
};

// One chunk of a panel times a block of tokens, by groups of tokens that stay in L1.
template <class V, class W>
void run_row_chunk(const MatmulView<W>& m, const RowChunk& chunk, int64_t n, int64_t num_rows, int64_t t_begin,
                   int64_t t_end, NextPanel& next) {
  constexpr int64_t kTile = RowConfig::kTileTokens, kRows = RowConfig::kTileRows;
  const int64_t block = t_end - t_begin;
  for (int64_t g = t_begin; g < t_end; g += RowConfig::kGroupTokens) {
    const int64_t g_end = std::min(g + RowConfig::kGroupTokens, t_end);
    int64_t row = 0;
    const auto tokens = [&]<int R>() {
      for (int64_t t = g; t < g_end; t += kTile) {
        float* carried = chunk.sums + (row * block + (t - t_begin) * R) * V::kLanes;
        run_row_tokens<V, R>(m, chunk, row, n, t, std::min(kTile, g_end - t), carried);
        next.fetch_some();
      }
    };
    for (; row + kRows <= num_rows; row += kRows) tokens.template operator()<kRows>();
    for (; row < num_rows; ++row) tokens.template operator()<1>();
  }
}

template <class V, class W>
void run_row_panel(const MatmulView<W>& m, const RowPlan<V, W>& plan, int64_t num_tokens, int64_t n, int64_t n_end,
                   std::byte* scratch) {
  auto* panel = reinterpret_cast<float*>(scratch);
  RowChunk chunk{.k_begin = 0, .k_end = 0, .panel = panel, .stride = plan.stride, .sums = panel + plan.panel_floats()};
  const float* group_scale[RowConfig::kPanelRows];
  if constexpr (WeightLoad<V, W>::kGrouped) {
    for (int64_t r = 0; r < n_end - n; ++r) group_scale[r] = m.groups.of_row(n + r);
    chunk.group_scale = group_scale;
  }
  const int64_t num_tiles = (n_end - n + RowConfig::kTileRows - 1) / RowConfig::kTileRows *
                            ((num_tokens + RowConfig::kTileTokens - 1) / RowConfig::kTileTokens) *
                            (plan.padded_k / plan.chunk_k);
  NextPanel next(m.weight + n_end * m.num_k, (n_end - n) * m.num_k * int64_t{sizeof(W)},
                 std::max<int64_t>(num_tiles, 1));
  for (int64_t t = 0; t < num_tokens; t += plan.num_tokens) {
    const int64_t t_end = std::min(t + plan.num_tokens, num_tokens);
    for (int64_t k = 0; k < plan.padded_k; k += plan.chunk_k) {
      chunk.k_begin = k;
      chunk.k_end = std::min(k + plan.chunk_k, plan.padded_k);
      decode_rows<V>(m, n, n_end - n, chunk, panel);
      run_row_chunk<V>(m, chunk, n, n_end - n, t, t_end, next);
    }
  }
}
}  // namespace octet
