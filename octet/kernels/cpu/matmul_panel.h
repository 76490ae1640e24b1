// Many tokens: a panel of kTileVectors vectors of rows and up to kMaxChunk columns is decoded to F32 once, for all
// tokens, in an order in which lanes are rows. Then tile by tile of kTileTokens tokens, each column of the panel
// (vectors) times the tokens' x (broadcast) goes to kTileVectors * kTileTokens sums.
//
// The order of K (matmul.h) has kLanes independent sums to each output: `residue` r takes every kLanes-th column, from
// the r-th. So the panel is kLanes smaller panels, one after the other, which stay in L1 while all tiles go by. At the
// end of a residue a tile's sums are added to those of the residues before it, in the tree in which V::sum4 adds lanes.
#pragma once

#include <algorithm>
#include <bit>

#include "octet/kernels/cpu/matmul_stage.h"

namespace octet {

// One chunk of K of a panel, and where the sums of its tiles go.
template <class V>
struct PanelChunk {
  static constexpr int kVectors = MatmulConfig::kTileVectors;
  static constexpr int kRows = kVectors * V::kLanes;
  static constexpr int kTileSums = kVectors * MatmulConfig::kTileTokens;  // vectors

  float* panel;  // [residue][step][kRows], residue_stride floats from residue to residue
  int64_t residue_stride;
  int64_t first_step, num_steps;
  bool is_first, is_last;
  float* carried;      // sums on their way from chunk to chunk [residue][tile][kTileSums][kLanes]
  float* tree;         // sums of residues that wait for others [level][tile][kTileSums][kLanes]
  float* group_scale;  // [group][kRows]
};

// How K is cut, and the scratch of one thread.
template <class V, class W>
struct PanelPlan {
  using Columns = WeightColumns<V, W>;
  using Chunk = PanelChunk<V>;
  static constexpr int kLevels = std::countr_zero(static_cast<unsigned>(V::kLanes));
  int64_t num_steps;    // of all of K
  int64_t chunk_steps;  // whole groups
  int64_t residue_stride;
  int64_t num_tiles;
  int64_t group_steps;  // 0: no groups

  PanelPlan(int64_t num_k, int64_t num_tokens, int64_t group_cols) {
    const auto up_to = [](int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; };
    const int64_t padded = up_to(num_k, Columns::kCount);
    const int64_t num_chunks = (padded + MatmulConfig::kMaxChunk - 1) / MatmulConfig::kMaxChunk;
    int64_t chunk = up_to((padded + num_chunks - 1) / num_chunks, Columns::kCount);
    if (WeightLoad<V, W>::kGrouped) chunk = up_to(chunk, group_cols);
    num_steps = padded / V::kLanes;
    chunk_steps = std::min(chunk / V::kLanes, num_steps);
    residue_stride = staged_stride(chunk_steps * Chunk::kRows);
    num_tiles = (num_tokens + MatmulConfig::kTileTokens - 1) / MatmulConfig::kTileTokens;
    group_steps = WeightLoad<V, W>::kGrouped ? group_cols / V::kLanes : 0;
  }
  int64_t num_chunks() const { return (num_steps + chunk_steps - 1) / chunk_steps; }
  int64_t panel_floats() const { return V::kLanes * residue_stride; }
  int64_t sums_floats() const { return num_tiles * Chunk::kTileSums * V::kLanes; }  // of a residue
  int64_t carried_floats() const { return num_chunks() == 1 ? 0 : V::kLanes * sums_floats(); }
  int64_t group_scale_floats() const {
    return group_steps == 0 ? 0 : (chunk_steps + group_steps - 1) / group_steps * Chunk::kRows;
  }
  int64_t scratch_bytes() const {
    return (panel_floats() + kLevels * sums_floats() + carried_floats() + group_scale_floats()) *
           int64_t{sizeof(float)};
  }
  int64_t packed_bytes() const {
    return V::kLanes * num_tiles * num_steps * MatmulConfig::kTileTokens * int64_t{sizeof(float)};
  }
  Chunk chunk(std::byte* scratch) const {
    auto* panel = reinterpret_cast<float*>(scratch);
    float* tree = panel + panel_floats();
    float* carried = tree + kLevels * sums_floats();
    return {.panel = panel,
            .residue_stride = residue_stride,
            .first_step = 0,
            .num_steps = 0,
            .is_first = true,
            .is_last = true,
            .carried = carried,
            .tree = tree,
            .group_scale = carried + carried_floats()};
  }
};

// kLanes rows of the weight from n, kCount columns from k: as columns of the panel, to the chunk's step `step`. Zeros
// in place of rows from num_rows on and of columns that there are not.
template <class V, class W>
[[gnu::always_inline]] inline void pack_block(const MatmulView<W>& m, int64_t n, int64_t num_rows, int64_t k, float* to,
                                              int64_t residue_stride) {
  using Columns = WeightColumns<V, W>;
  constexpr int64_t kRowBytes = V::kLanes * 4;
  typename V::Int dwords[V::kLanes];
  const W* from = m.weight + n * m.num_k + k;
  if (num_rows >= V::kLanes && k + Columns::kCount <= m.num_k) {
    V::load_transposed(from, m.num_k * int64_t{sizeof(W)}, dwords);
  } else {
    std::byte block[V::kLanes * kRowBytes] = {};
    const int64_t count = std::min<int64_t>(Columns::kCount, m.num_k - k);
    for (int64_t r = 0; r < std::min<int64_t>(num_rows, V::kLanes); ++r) {
      std::memcpy(block + r * kRowBytes, from + r * m.num_k, static_cast<size_t>(count) * sizeof(W));
    }
    V::load_transposed(block, kRowBytes, dwords);
  }
#pragma GCC unroll 16
  for (int d = 0; d < V::kLanes; ++d) {
    typename V::Float columns[Columns::kPerDword];
    Columns::decode(dwords[d], columns);
#pragma GCC unroll 4
    for (int i = 0; i < Columns::kPerDword; ++i) {
      V::store(to + Columns::residue(d, i) * residue_stride + Columns::step(d, i) * PanelChunk<V>::kRows, columns[i]);
    }
  }
}

// Rows n .. n + num_rows of the weight, the chunk's columns, and their groups' scales. Two blocks of a row at a time: a
// line of memory at once, where rows that fall into the same sets of L1 would lose it before it is asked for again.
template <class V, class W>
void pack_panel(const MatmulView<W>& m, int64_t n, int64_t num_rows, const PanelChunk<V>& chunk) {
  constexpr int64_t kCount = WeightColumns<V, W>::kCount;
  const int64_t begin = chunk.first_step * V::kLanes;
  const int64_t end = begin + chunk.num_steps * V::kLanes;
  for (int64_t k = begin; k < end; k += 2 * kCount) {
    for (int v = 0; v < PanelChunk<V>::kVectors; ++v) {
      for (int64_t block = k; block < std::min(k + 2 * kCount, end); block += kCount) {
        float* to = chunk.panel + (block - begin) / V::kLanes * PanelChunk<V>::kRows + v * V::kLanes;
        pack_block<V>(m, n + v * V::kLanes, num_rows - v * V::kLanes, block, to, chunk.residue_stride);
      }
    }
  }
  if constexpr (WeightLoad<V, W>::kGrouped) {
    float* scale = chunk.group_scale;
    for (int64_t k = begin; k < std::min(end, m.num_k); k += m.groups.cols) {
      for (int64_t r = 0; r < PanelChunk<V>::kRows; ++r) {
        *scale++ = r < num_rows ? m.groups.of_row(n + r)[k / m.groups.cols] : 0.0f;
      }
    }
  }
}

// Adds num_steps columns of the panel times a tile's tokens.
template <class V>
[[gnu::always_inline]] inline void add_panel_columns(const float* panel, const float* x, int64_t num_steps,
                                                     typename V::Float (&sums)[PanelChunk<V>::kTileSums]) {
  constexpr int kVectors = MatmulConfig::kTileVectors, kTokens = MatmulConfig::kTileTokens;
  for (int64_t j = 0; j < num_steps; ++j, panel += PanelChunk<V>::kRows, x += kTokens) {
    typename V::Float w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = V::load(panel + v * V::kLanes);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const auto a = V::set(x[t]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[t * kVectors + v] = V::fma(w[v], a, sums[t * kVectors + v]);
    }
  }
}

// The same for weights with scales per group, whose groups begin with the chunk: each group's sum times its scale.
template <class V>
[[gnu::always_inline]] inline void add_panel_groups(const float* panel, const float* x, int64_t num_steps,
                                                    int64_t group_steps, const float* scale,
                                                    typename V::Float (&sums)[PanelChunk<V>::kTileSums]) {
  constexpr int kVectors = MatmulConfig::kTileVectors, kTokens = MatmulConfig::kTileTokens;
  for (int64_t j = 0; j < num_steps; j += group_steps, scale += PanelChunk<V>::kRows) {
    typename V::Float group[PanelChunk<V>::kTileSums];
#pragma GCC unroll 16
    for (auto& sum : group) sum = V::zero();
    add_panel_columns<V>(panel + j * PanelChunk<V>::kRows, x + j * kTokens, std::min(group_steps, num_steps - j),
                         group);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const auto by = V::load(scale + v * V::kLanes);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        sums[t * kVectors + v] = V::fma(group[t * kVectors + v], by, sums[t * kVectors + v]);
      }
    }
  }
}

// OutputScales::finish for a tile: num_rows rows from n, num_tokens tokens from `token`.
template <class V, class W>
[[gnu::always_inline]] inline void finish_panel_tile(const MatmulView<W>& m, int64_t n, int64_t num_rows, int64_t token,
                                                     int64_t num_tokens,
                                                     const typename V::Float (&sums)[PanelChunk<V>::kTileSums]) {
  constexpr int kVectors = MatmulConfig::kTileVectors, kTokens = MatmulConfig::kTileTokens;
  const OutputScales& scales = m.scales;
  float lanes[3][V::kLanes];  // of the last vector, which may be shorter
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t row = n + v * V::kLanes, count = std::min<int64_t>(num_rows - v * V::kLanes, V::kLanes);
    if (count <= 0) return;
    const auto row_values = [&](const float* from, float* own) {
      if (count == V::kLanes) return from;
      std::copy_n(from, count, own);
      return static_cast<const float*>(own);
    };
    const auto w_scale =
        scales.w_scale_step == 0 ? V::set(*scales.w_scale) : V::load(row_values(scales.w_scale + row, lanes[0]));
    const float* bias = scales.bias ? row_values(scales.bias + row, lanes[1]) : nullptr;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      if (t >= num_tokens) break;
      const auto scale = V::mul(V::set(scales.x_scale[(token + t) * scales.x_scale_step]), w_scale);
      auto value = V::mul(V::mul(sums[t * kVectors + v], V::set(m.sum_factor)), scale);
      if (bias) value = V::add(value, V::load(bias));
      float* out = m.out + (token + t) * m.out_stride + row;
      if (count == V::kLanes) {
        V::store(out, value);
      } else {
        store_partial<V>(out, value, count);
      }
    }
  }
}

// A panel's rows and the tokens, as its tiles see them.
template <class W>
struct PanelTarget {
  const MatmulView<W>& m;
  const PackedTokens& x;
  int64_t n;
  int64_t num_rows;
  int64_t num_tokens;
  int64_t group_steps;
};

// The residue of rank `order` in the tree, times one tile.
template <class V, class W>
void run_panel_tile(const PanelTarget<W>& target, const PanelChunk<V>& chunk, int order, int64_t tile) {
  constexpr int kCount = PanelChunk<V>::kTileSums;
  const int residue = V::tree_lane(order);
  const int64_t tile_floats = kCount * V::kLanes, level_floats = target.x.num_tiles * tile_floats;
  float* carried = chunk.carried + residue * level_floats + tile * tile_floats;
  typename V::Float sums[kCount];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) sums[i] = chunk.is_first ? V::zero() : V::load(carried + i * V::kLanes);
  const float* panel = chunk.panel + residue * chunk.residue_stride;
  const float* x = target.x.at(residue, tile) + chunk.first_step * MatmulConfig::kTileTokens;
  if constexpr (WeightLoad<V, W>::kGrouped) {
    add_panel_groups<V>(panel, x, chunk.num_steps, target.group_steps, chunk.group_scale, sums);
  } else {
    add_panel_columns<V>(panel, x, chunk.num_steps, sums);
  }
  const auto store_to = [&](float* to) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) V::store(to + i * V::kLanes, sums[i]);
  };
  if (!chunk.is_last) return store_to(carried);
  // As carries ripple in a counter: pairs of equal size meet.
  int level = std::popcount(static_cast<unsigned>(order));
  for (int pairs = std::countr_one(static_cast<unsigned>(order)); pairs > 0; --pairs) {
    --level;
    const float* before = chunk.tree + level * level_floats + tile * tile_floats;
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) sums[i] = V::add(V::load(before + i * V::kLanes), sums[i]);
  }
  if (order + 1 < V::kLanes) return store_to(chunk.tree + level * level_floats + tile * tile_floats);
  const int64_t token = tile * MatmulConfig::kTileTokens;
  finish_panel_tile<V>(target.m, target.n, target.num_rows, token,
                       std::min<int64_t>(MatmulConfig::kTileTokens, target.num_tokens - token), sums);
}

// Rows n .. n_end, at most a panel, times all tokens.
template <class V, class W>
void run_panel(const MatmulView<W>& m, const PanelPlan<V, W>& plan, const PackedTokens& x, int64_t num_tokens,
               int64_t n, int64_t n_end, std::byte* scratch) {
  PanelChunk<V> chunk = plan.chunk(scratch);
  const PanelTarget<W> target{m, x, n, n_end - n, num_tokens, plan.group_steps};
  NextPanel next(m.weight + n_end * m.num_k, (n_end - n) * m.num_k * int64_t{sizeof(W)},
                 plan.num_chunks() * V::kLanes * x.num_tiles);
  for (int64_t step = 0; step < plan.num_steps; step += plan.chunk_steps) {
    chunk.first_step = step;
    chunk.num_steps = std::min(plan.chunk_steps, plan.num_steps - step);
    chunk.is_first = step == 0;
    chunk.is_last = step + chunk.num_steps == plan.num_steps;
    pack_panel<V>(m, n, n_end - n, chunk);
    for (int order = 0; order < V::kLanes; ++order) {
      for (int64_t tile = 0; tile < x.num_tiles; ++tile) {
        run_panel_tile<V, W>(target, chunk, order, tile);
        next.fetch_some();
      }
    }
  }
}

}  // namespace octet
