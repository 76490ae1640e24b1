// Matrix product for every number of tokens, weights decoded in registers.
//
// Order of K: each output (t, n) has one vector accumulator; its lanes add their products in one order with FMA, and
// V::sum4 adds the lanes. Lane l takes k = l, l + kLanes, ...; with FP8 weights, whose codes are decoded four to a lane
// (V::load_quads), k = 4 l .. 4 l + 3, then the same kLanes * 4 further on, ... No tiling, thread count or T changes
// that, so a row's bits depend on its own x only.
//
// FP8 weights enter the FMA as value * 2^-120 (their bits moved to F32's place) while there are few tokens, so x is
// staged times 2^64 and the sum taken times 2^56: subnormal codes come out exact and no product drops below F32's
// range. With more tokens the panel holds true values (an FMA with a subnormal input costs about 100 cycles, the panel
// pays it once). Powers of two change no mantissa: both give the same bits as long as sums of x * q stay below 2^60.
// FP8 weights with a scale per group or block: the accumulator is multiplied by it at the end of each group, into a
// second one (an FMA), and starts from 0 again. x in groups is multiplied by its scales as it is staged.
// E4M3 NaN codes in weights are not looked for here (they read as +-480): loading refuses them.
//
// Many tokens: a panel of kPanelRows rows and up to kMaxChunk k is decoded to F32 once (L2), then x goes by in groups
// of kGroupTokens tokens that stay in L1 while the panel's rows stream past them, three at a time.
#pragma once

#include <algorithm>
#include <string>

#include "octet/kernels/cpu/matmul_parts.h"
#include "octet/kernels/cpu/split.h"
#include "octet/kernels/cpu/vector_math.h"
#include "octet/ops/ops.h"

namespace octet {

// An FP8 code of a weight with scales per group or block of columns.
struct GroupedF8E4M3 {
  F8E4M3 code;
};

// How weights of type W come into registers: vectors per load, and the factor the load left out.
template <class V, class W>
struct WeightLoad {
  static constexpr bool kGrouped = std::is_same_v<W, GroupedF8E4M3>;
  static constexpr bool kQuads = std::is_same_v<W, F8E4M3> || kGrouped;
  static constexpr int kVectors = kQuads ? 4 : 1;
  static constexpr int kElements = kVectors * V::kLanes;
  static constexpr float kScale = kQuads ? kQuadsScale : 1.0f;

  [[gnu::always_inline]] static inline void load(const W* p, typename V::Float (&out)[kVectors]) {
    if constexpr (kQuads) {
      V::load_quads(reinterpret_cast<const F8E4M3*>(p), out);
    } else {
      out[0] = V::load(p);
    }
  }
  // The first `count` elements, zeros behind them.
  [[gnu::always_inline]] static inline void load_partial(const W* p, int64_t count,
                                                         typename V::Float (&out)[kVectors]) {
    W elements[kElements] = {};
    std::memcpy(elements, p, static_cast<size_t>(count) * sizeof(W));
    load(elements, out);
  }
  // Whole steps.
  static constexpr int64_t padded(int64_t num_k) { return (num_k + kElements - 1) / kElements * kElements; }
};

// A matmul as the inner loops see it. x lies in the order of K that the weights are decoded in, with zeros up to a
// multiple of WeightLoad::kElements behind each row of num_k.
template <class W>
struct MatmulView {
  const W* weight;
  int64_t num_k;
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
  float sum_factor;  // of the raw sum: undoes staging and decoding
  OutputScales scales;
  GroupScales groups;
};

template <class V, int R, int T, class W>
[[gnu::always_inline]] inline void finish_tile(const MatmulView<W>& m, int64_t n, int64_t token,
                                               typename V::Float (&sums)[R * T]) {
  constexpr int kCount = R * T;
  alignas(16) float totals[(kCount + 3) / 4 * 4];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; i += 4) {
    const int last = kCount - 1;
    _mm_store_ps(totals + i, V::sum4(sums[i], sums[std::min(i + 1, last)], sums[std::min(i + 2, last)],
                                     sums[std::min(i + 3, last)]));
  }
  for (int t = 0; t < T; ++t) {
    float* out = m.out + (token + t) * m.out_stride + n;
    for (int r = 0; r < R; ++r) out[r] = m.scales.finish(totals[r * T + t] * m.sum_factor, token + t, n + r);
  }
}

// Sums over whole groups of R rows times T tokens.
template <class V, int R, int T>
struct GroupSums {
  typename V::Float sums[R * T];
  const float* scale[R];  // of the first group

  [[gnu::always_inline]] inline explicit GroupSums(const typename V::Float (&start)[R * T]) {
    std::copy_n(start, R * T, sums);
  }
  // Adds the sums of the group of that index, which become 0.
  [[gnu::always_inline]] inline void add(typename V::Float (&group)[R * T], int64_t index) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto by = V::set(scale[r][index]);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        sums[r * T + t] = V::fma(group[r * T + t], by, sums[r * T + t]);
        group[r * T + t] = V::zero();
      }
    }
  }
};

// Few tokens: R rows from n, weights decoded straight into the FMAs of all T tokens.
template <class V, int R, int T, class W>
[[gnu::always_inline]] inline void run_direct_rows(const MatmulView<W>& m, int64_t n) {
  using Load = WeightLoad<V, W>;
  typename V::Float sums[R * T];
#pragma GCC unroll 16
  for (int i = 0; i < R * T; ++i) sums[i] = V::zero();
  const W* weight = m.weight + n * m.num_k;
  GroupSums<V, R, T> groups(sums);
  if constexpr (Load::kGrouped) {
    for (int r = 0; r < R; ++r) groups.scale[r] = m.groups.of_row(n + r);
  }
  const auto step = [&](int64_t k, int64_t count) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      typename V::Float w[Load::kVectors];
      if (count == Load::kElements) {
        Load::load(weight + r * m.num_k + k, w);
      } else {
        Load::load_partial(weight + r * m.num_k + k, count, w);
      }
#pragma GCC unroll 4
      for (int v = 0; v < Load::kVectors; ++v) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          const auto a = V::load(m.x + t * m.x_stride + k + v * V::kLanes);
          sums[r * T + t] = V::fma(w[v], a, sums[r * T + t]);
        }
      }
    }
  };
  const int64_t group_cols = Load::kGrouped ? m.groups.cols : m.num_k;
  for (int64_t begin = 0, index = 0; begin < m.num_k; begin += group_cols, ++index) {
    const int64_t end = std::min(begin + group_cols, m.num_k);
    int64_t k = begin;
    for (; k + Load::kElements <= end; k += Load::kElements) {
      prefetch_rows<R * Load::kElements>(weight + R * (m.num_k + k));
      step(k, Load::kElements);
    }
    if (k < end) step(k, end - k);
    if constexpr (Load::kGrouped) groups.add(sums, index);
  }
  if constexpr (Load::kGrouped) std::copy_n(groups.sums, R * T, sums);
  finish_tile<V, R, T>(m, n, 0, sums);
}

template <class V, int R, int T, class W>
void run_direct_range(const MatmulView<W>& m, int64_t begin, int64_t end) {
  int64_t n = begin;
  for (; n + R <= end; n += R) run_direct_rows<V, R, T>(m, n);
  for (; n < end; ++n) run_direct_rows<V, 1, T>(m, n);
}

template <class V, class W>
void run_direct(const MatmulView<W>& m, int64_t num_tokens, int64_t begin, int64_t end) {
  switch (num_tokens) {
    case 1:
      return run_direct_range<V, 8, 1>(m, begin, end);
    case 2:
      return run_direct_range<V, 4, 2>(m, begin, end);
    case 3:
      return run_direct_range<V, 3, 3>(m, begin, end);
    default:
      return run_direct_range<V, 2, 4>(m, begin, end);
  }
}

// The part of K that one pass over a panel covers, and its memory.
struct PanelChunk {
  int64_t k_begin;
  int64_t k_end;
  const float* panel;  // F32 weights [rows][stride], zeros behind k_end
  int64_t stride;
  float* sums;                                // accumulators carried between chunks [rows][tokens][kLanes]
  const float* const* group_scale = nullptr;  // of each row, the first group's
};

// Adds columns [k, end) of R rows of the panel times T tokens to `sums`.
template <class V, int R, int T>
[[gnu::always_inline]] inline void add_panel_columns(const float* panel, int64_t stride, const float* x,
                                                     int64_t x_stride, int64_t k, int64_t end,
                                                     typename V::Float (&sums)[R * T]) {
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
void run_panel_tile(const MatmulView<W>& m, const PanelChunk& chunk, int64_t row, int64_t n, int64_t token,
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
      add_panel_columns<V, R, T>(panel, chunk.stride, x, m.x_stride, k, std::min(k + m.groups.cols, count), group);
      groups.add(group, index);
    }
    std::copy_n(groups.sums, kCount, sums);
  } else {
    add_panel_columns<V, R, T>(panel, chunk.stride, x, m.x_stride, 0, count, sums);
  }
  if (chunk.k_end < m.num_k) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) V::store(carried + i * V::kLanes, sums[i]);
  } else {
    finish_tile<V, R, T>(m, n + row, token, sums);
  }
}

template <class V, int R, class W>
[[gnu::always_inline]] inline void run_panel_tokens(const MatmulView<W>& m, const PanelChunk& chunk, int64_t row,
                                                    int64_t n, int64_t token, int64_t count, float* carried) {
  switch (count) {
    case 1:
      return run_panel_tile<V, R, 1>(m, chunk, row, n, token, carried);
    case 2:
      return run_panel_tile<V, R, 2>(m, chunk, row, n, token, carried);
    case 3:
      return run_panel_tile<V, R, 3>(m, chunk, row, n, token, carried);
    default:
      return run_panel_tile<V, R, 4>(m, chunk, row, n, token, carried);
  }
}

// Rows n .. n + num_rows of the weight, k of the chunk, as true F32 values.
template <class V, class W>
void decode_panel(const MatmulView<W>& m, int64_t n, int64_t num_rows, const PanelChunk& chunk, float* panel) {
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
struct PanelPlan {
  using Load = WeightLoad<V, W>;
  int64_t padded_k;
  int64_t chunk_k;     // a multiple of Load::kElements
  int64_t stride;      // of the panel's rows
  int64_t num_tokens;  // of a block

  // Chunks are whole groups, of group_cols columns.
  PanelPlan(int64_t num_k, int64_t all_tokens, int64_t group_cols) {
    padded_k = Load::padded(num_k);
    const int64_t num_chunks = (padded_k + MatmulConfig::kMaxChunk - 1) / MatmulConfig::kMaxChunk;
    chunk_k = Load::padded((padded_k + num_chunks - 1) / num_chunks);
    if (Load::kGrouped) chunk_k = (chunk_k + group_cols - 1) / group_cols * group_cols;
    stride = staged_stride(chunk_k);
    constexpr int64_t kGroup = MatmulConfig::kGroupTokens;
    const int64_t fitting = MatmulConfig::kStagedBytes / (padded_k * int64_t{sizeof(float)}) / kGroup * kGroup;
    num_tokens = std::min(all_tokens, std::max<int64_t>(fitting, 2 * kGroup));
  }
  int64_t panel_floats() const { return MatmulConfig::kPanelRows * stride; }
  int64_t scratch_bytes() const {
    return (panel_floats() + MatmulConfig::kPanelRows * num_tokens * V::kLanes) * int64_t{sizeof(float)};
  }
};

// One chunk of a panel times a block of tokens, by groups of tokens that stay in L1.
template <class V, class W>
void run_panel_chunk(const MatmulView<W>& m, const PanelChunk& chunk, int64_t n, int64_t num_rows, int64_t t_begin,
                     int64_t t_end, NextPanel& next) {
  constexpr int64_t kTile = MatmulConfig::kTileTokens, kRows = MatmulConfig::kTileRows;
  const int64_t block = t_end - t_begin;
  for (int64_t g = t_begin; g < t_end; g += MatmulConfig::kGroupTokens) {
    const int64_t g_end = std::min(g + MatmulConfig::kGroupTokens, t_end);
    int64_t row = 0;
    const auto tokens = [&]<int R>() {
      for (int64_t t = g; t < g_end; t += kTile) {
        float* carried = chunk.sums + (row * block + (t - t_begin) * R) * V::kLanes;
        run_panel_tokens<V, R>(m, chunk, row, n, t, std::min(kTile, g_end - t), carried);
        next.fetch_some();
      }
    };
    for (; row + kRows <= num_rows; row += kRows) tokens.template operator()<kRows>();
    for (; row < num_rows; ++row) tokens.template operator()<1>();
  }
}

template <class V, class W>
void run_panels(const MatmulView<W>& m, const PanelPlan<V, W>& plan, int64_t num_tokens, int64_t n, int64_t n_end,
                std::byte* scratch) {
  auto* panel = reinterpret_cast<float*>(scratch);
  PanelChunk chunk{
      .k_begin = 0, .k_end = 0, .panel = panel, .stride = plan.stride, .sums = panel + plan.panel_floats()};
  const float* group_scale[MatmulConfig::kPanelRows];
  if constexpr (WeightLoad<V, W>::kGrouped) {
    for (int64_t r = 0; r < n_end - n; ++r) group_scale[r] = m.groups.of_row(n + r);
    chunk.group_scale = group_scale;
  }
  const int64_t num_tiles = (n_end - n + MatmulConfig::kTileRows - 1) / MatmulConfig::kTileRows *
                            ((num_tokens + MatmulConfig::kTileTokens - 1) / MatmulConfig::kTileTokens) *
                            (plan.padded_k / plan.chunk_k);
  NextPanel next(m.weight + n_end * m.num_k, (n_end - n) * m.num_k * int64_t{sizeof(W)},
                 std::max<int64_t>(num_tiles, 1));
  for (int64_t t = 0; t < num_tokens; t += plan.num_tokens) {
    const int64_t t_end = std::min(t + plan.num_tokens, num_tokens);
    for (int64_t k = 0; k < plan.padded_k; k += plan.chunk_k) {
      chunk.k_begin = k;
      chunk.k_end = std::min(k + plan.chunk_k, plan.padded_k);
      decode_panel<V>(m, n, n_end - n, chunk, panel);
      run_panel_chunk<V>(m, chunk, n, n_end - n, t, t_end, next);
    }
  }
}

// Whether x goes through scratch: as F32, scaled and reordered for FP8 weights, zeros behind its rows.
template <class V>
bool must_stage(const MatmulOp& op) {
  return op.x.data.dtype != DType::kF32 || op.weight.data.dtype == DType::kF8E4M3 || op.x.data.dim(1) % V::kLanes != 0;
}

// A row in the order of load_quads.
template <class V>
void stage_quads(const float* from, int64_t count, float factor, float* to) {
  constexpr int64_t kElements = 4 * V::kLanes;
  for (int64_t k = 0; k < count; k += kElements, to += kElements) {
    float part[kElements] = {};
    std::memcpy(part, from + k, static_cast<size_t>(std::min(kElements, count - k)) * sizeof(float));
    for (int64_t i = 0; i < kElements; ++i) to[i % 4 * V::kLanes + i / 4] = part[i] * factor;
  }
}
template <class V>
void stage_quads(const F8E4M3* from, int64_t count, float factor, float* to) {
  using Load = WeightLoad<V, F8E4M3>;
  const auto load_scale = V::set(kQuadsScale);  // not in one factor: the product is beyond F32
  const auto by = V::set(factor);
  const auto most = V::bits(V::set(factor * kMaxF8E4M3));
  const auto nan = V::iset(0x7fc00000);
  for (int64_t k = 0; k < count; k += Load::kElements, to += Load::kElements) {
    typename V::Float values[Load::kVectors];
    if (k + Load::kElements <= count) {
      Load::load(from + k, values);
    } else {
      Load::load_partial(from + k, count - k, values);
    }
    for (int v = 0; v < Load::kVectors; ++v) {
      const auto value = V::bits(V::mul(V::mul(values[v], load_scale), by));
      const auto magnitude = V::iand(value, V::iset(0x7fffffff));
      V::store(to + v * V::kLanes, V::from_bits(V::select_gt(magnitude, most, nan, value)));  // NaN codes read as 480
    }
  }
}

template <class V, class W>
void stage_rows(const MatmulOp& op, float factor, int64_t begin, int64_t end, float* to, int64_t stride) {
  const int64_t num_k = op.x.data.dim(1);
  const auto stage = [](const auto* from, int64_t count, float by, float* staged) {
    if constexpr (WeightLoad<V, W>::kQuads) {
      stage_quads<V>(from, count, by, staged);
    } else {
      convert_row<V>(from, count, by, staged);
    }
  };
  for (int64_t t = begin; t < end; ++t, to += stride) {
    if (op.x.data.dtype == DType::kF32) {
      stage(op.x.data.row<float>(t), num_k, factor, to);
    } else if (op.x.format.granularity != Granularity::kGroup) {
      stage(op.x.data.row<F8E4M3>(t), num_k, factor, to);
    } else {
      const float* scale = op.x.scale.row<float>(t);
      const int64_t cols = op.x.format.group_cols;
      for (int64_t k = 0; k < num_k; k += cols) {
        stage(op.x.data.row<F8E4M3>(t) + k, std::min(cols, num_k - k), factor * *scale++, to + k);
      }
    }
  }
}

// x of `num_tokens` tokens from `first`, staged to `to`.
template <class V, class W>
void stage_tokens(const MatmulOp& op, const Launch& launch, float factor, int64_t first, int64_t num_tokens, float* to,
                  int64_t stride) {
  constexpr int64_t kSerial = 8;  // fewer are staged faster than threads are woken
  if (num_tokens <= kSerial) return stage_rows<V, W>(op, factor, first, first + num_tokens, to, stride);
  const int num_threads = launch.threads->num_threads();
  launch.threads->run([&](int thread) {
    const auto [begin, end] = share_of(num_tokens, 1, thread, num_threads);
    stage_rows<V, W>(op, factor, first + begin, first + end, to + begin * stride, stride);
  });
}

template <class V, class W>
void run_matmul_tokens(const MatmulOp& op, const Launch& launch, int64_t first, int64_t num_tokens) {
  using Load = WeightLoad<V, W>;
  const float stage_factor = Load::kQuads ? 0x1p64f : 1.0f;
  const int64_t num_k = op.x.data.dim(1);
  const int64_t num_n = op.weight.data.dim(0);
  const bool staged = must_stage<V>(op);
  const int64_t stride = staged_stride(Load::padded(num_k));
  const int64_t staged_bytes = staged ? num_tokens * stride * int64_t{sizeof(float)} : 0;
  const bool direct = num_tokens <= MatmulConfig::kTileTokens;
  const PanelPlan<V, W> plan(num_k, num_tokens, op.weight.format.group_cols);
  // Thread 0's buffer: the staged x of all threads, then its own panel.
  std::byte* scratch = launch.scratch->get(0, staged_bytes + plan.scratch_bytes());
  auto* staged_x = reinterpret_cast<float*>(scratch);

  MatmulView<W> m{};
  m.weight = reinterpret_cast<const W*>(op.weight.data.bytes);
  m.num_k = num_k;
  m.x = staged ? staged_x : op.x.data.row<float>(first);
  m.x_stride = staged ? stride : op.x.data.row_stride;
  m.out = op.out.row<float>(first);
  m.out_stride = op.out.row_stride;
  m.sum_factor = !Load::kQuads ? 1.0f : direct ? 0x1p56f : 0x1p-64f;
  m.scales = output_scales(op, first);
  m.groups = group_scales(op.weight);

  if (staged) stage_tokens<V, W>(op, launch, stage_factor, first, num_tokens, staged_x, stride);
  constexpr int64_t kMostRows = 8;  // of a direct tile
  const int64_t row_bytes = num_k * static_cast<int64_t>(sizeof(W));
  const int64_t direct_rows = std::max<int64_t>(1, MatmulConfig::kDirectBytes / (row_bytes * kMostRows)) * kMostRows;
  const int64_t grain = direct ? direct_rows : MatmulConfig::kPanelRows;
  const int num_threads = launch.threads->num_threads();
  StealingShares shares(num_n, grain, num_threads);
  const ReadAhead::Matrix* matrix = begin_read_ahead(op, launch, direct_rows);
  launch.threads->run([&](int thread) {
    std::byte* own = direct        ? nullptr
                     : thread == 0 ? scratch + staged_bytes
                                   : launch.scratch->get(thread, plan.scratch_bytes());
    shares.run(thread, [&](int64_t begin, int64_t end) {
      if (direct) {
        run_direct<V>(m, num_tokens, begin, end);
      } else {
        run_panels<V>(m, plan, num_tokens, begin, end, own);
      }
    });
    if (matrix) launch.read_ahead->end(matrix, thread);
  });
}

template <class V>
void run_matmul(const MatmulOp& op, const Launch& launch) {
  const Granularity g = op.weight.format.granularity;
  const bool grouped = g == Granularity::kGroup || g == Granularity::kBlock;
  for (int64_t t = 0; t < op.x.data.dim(0); t += MatmulConfig::kMaxStaged) {
    const int64_t count = std::min(MatmulConfig::kMaxStaged, op.x.data.dim(0) - t);
    switch (op.weight.data.dtype) {
      case DType::kF32:
        run_matmul_tokens<V, float>(op, launch, t, count);
        break;
      case DType::kBF16:
        run_matmul_tokens<V, BF16>(op, launch, t, count);
        break;
      case DType::kF16:
        run_matmul_tokens<V, F16>(op, launch, t, count);
        break;
      case DType::kI8:
        run_matmul_tokens<V, int8_t>(op, launch, t, count);
        break;
      default:
        if (grouped) {
          run_matmul_tokens<V, GroupedF8E4M3>(op, launch, t, count);
        } else {
          run_matmul_tokens<V, F8E4M3>(op, launch, t, count);
        }
        break;
    }
  }
}

}  // namespace octet
