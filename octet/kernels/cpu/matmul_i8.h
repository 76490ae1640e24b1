// Matrix product of i8 by i8 for every number of tokens: exact I32 sums, so that no order of K matters.
//
// x is staged as 16-bit integers less its zero point, in [-255, 255], weights are widened to 16 bits as they are
// loaded; the product of two pairs fits in I32, and so do sums over up to kMaxI8Columns columns (declines.h).
//
// Many tokens: a thread takes kPanelRows rows, whose codes stay in L2, and multiplies them by kTileTokens tokens after
// the other, kChunk columns at a time, for which these tokens' x stays in L1.
#pragma once

#include <algorithm>
#include <cstring>

#include "octet/kernels/cpu/matmul_parts.h"
#include "octet/ops/ops.h"

namespace octet {

struct MatmulI8Config {
  static constexpr int64_t kChunk = 2048;
  static constexpr int64_t kPanelRows = 24;
  static constexpr int kTileRows = 2;
  static constexpr int64_t kTileTokens = 4;
  static constexpr int64_t kMostDirectRows = 8;
};

// x: zeros up to a multiple of V::kWords behind each row of num_k.
struct MatmulI8View {
  const int8_t* weight;
  int64_t num_k;
  const int16_t* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
  OutputScales scales;
};

// Words from row to row of staged x: an odd number of cache lines, as staged_stride.
constexpr int64_t staged_words(int64_t num_columns) { return 2 * staged_stride((num_columns + 1) / 2); }

// Adds R rows of the weight, from n, times T tokens, from `token`, columns [begin, end), to sums [R * T].
template <class V, int R, int T, bool kPrefetch>
[[gnu::always_inline]] inline void add_i8_tile(const MatmulI8View& m, int64_t n, int64_t token, int64_t begin,
                                               int64_t end, int32_t* sums) {
  constexpr int kCount = R * T;
  typename V::Int lanes[kCount];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) lanes[i] = V::iset(0);
  const int8_t* weight = m.weight + n * m.num_k;
  const int16_t* x = m.x + token * m.x_stride;
  const auto add = [&](int r, int64_t k, typename V::Int w) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      lanes[r * T + t] = V::add_products(w, V::load_words(x + t * m.x_stride + k), lanes[r * T + t]);
    }
  };
  int64_t k = begin;
  for (; k + V::kWords <= end; k += V::kWords) {
    if constexpr (kPrefetch) prefetch_rows<R * V::kWords>(weight + R * (m.num_k + k));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) add(r, k, V::load_words(weight + r * m.num_k + k));
  }
  if (k < end) {
    for (int r = 0; r < R; ++r) {
      int8_t codes[V::kWords] = {};
      std::memcpy(codes, weight + r * m.num_k + k, static_cast<size_t>(end - k));
      add(r, k, V::load_words(codes));
    }
  }
  alignas(16) int32_t totals[(kCount + 3) / 4 * 4];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; i += 4) {
    const int last = kCount - 1;
    _mm_store_si128(
        reinterpret_cast<__m128i*>(totals + i),
        V::isum4(lanes[i], lanes[std::min(i + 1, last)], lanes[std::min(i + 2, last)], lanes[std::min(i + 3, last)]));
  }
  for (int i = 0; i < kCount; ++i) sums[i] += totals[i];
}

template <class V, int R, int T>
void finish_i8_tile(const MatmulI8View& m, int64_t n, int64_t token, const int32_t* sums) {
  for (int t = 0; t < T; ++t) {
    float* out = m.out + (token + t) * m.out_stride + n;
    for (int r = 0; r < R; ++r) out[r] = m.scales.finish(static_cast<float>(sums[r * T + t]), token + t, n + r);
  }
}

// Few tokens: all of K at once, weights straight from memory.
template <class V, int R, int T>
void run_i8_direct_rows(const MatmulI8View& m, int64_t n) {
  int32_t sums[R * T] = {};
  add_i8_tile<V, R, T, true>(m, n, 0, 0, m.num_k, sums);
  finish_i8_tile<V, R, T>(m, n, 0, sums);
}

template <class V, int R, int T>
void run_i8_direct_range(const MatmulI8View& m, int64_t begin, int64_t end) {
  int64_t n = begin;
  for (; n + R <= end; n += R) run_i8_direct_rows<V, R, T>(m, n);
  for (; n < end; ++n) run_i8_direct_rows<V, 1, T>(m, n);
}

template <class V>
void run_i8_direct(const MatmulI8View& m, int64_t num_tokens, int64_t begin, int64_t end) {
  switch (num_tokens) {
    case 1:
      return run_i8_direct_range<V, 8, 1>(m, begin, end);
    case 2:
      return run_i8_direct_range<V, 4, 2>(m, begin, end);
    case 3:
      return run_i8_direct_range<V, 2, 3>(m, begin, end);
    default:
      return run_i8_direct_range<V, 2, 4>(m, begin, end);
  }
}

// Many tokens: rows [n, n_end), at most kPanelRows, times T tokens.
template <class V, int T>
void run_i8_panel_tokens(const MatmulI8View& m, int64_t n, int64_t n_end, int64_t token, NextPanel& next) {
  constexpr int kRows = MatmulI8Config::kTileRows;
  int32_t sums[MatmulI8Config::kPanelRows * T] = {};
  const auto for_tiles = [&](auto&& tile) __attribute__((always_inline)) {
    int64_t row = n;
    for (; row + kRows <= n_end; row += kRows) tile.template operator()<kRows>(row);
    for (; row < n_end; ++row) tile.template operator()<1>(row);
  };
  for (int64_t k = 0; k < m.num_k; k += MatmulI8Config::kChunk) {
    const int64_t k_end = std::min(k + MatmulI8Config::kChunk, m.num_k);
    for_tiles([&]<int R>(int64_t row) __attribute__((always_inline)) {
      add_i8_tile<V, R, T, false>(m, row, token, k, k_end, sums + (row - n) * T);
      next.fetch_some();
    });
  }
  for_tiles([&]<int R>(int64_t row)
                __attribute__((always_inline)) { finish_i8_tile<V, R, T>(m, row, token, sums + (row - n) * T); });
}

template <class V>
void run_i8_panel(const MatmulI8View& m, int64_t num_tokens, int64_t n, int64_t n_end) {
  constexpr int64_t kTokens = MatmulI8Config::kTileTokens;
  const int64_t num_tiles = (n_end - n + 1) / MatmulI8Config::kTileRows * ((num_tokens + kTokens - 1) / kTokens) *
                            ((m.num_k + MatmulI8Config::kChunk - 1) / MatmulI8Config::kChunk);
  NextPanel next(m.weight + n_end * m.num_k, (n_end - n) * m.num_k, std::max<int64_t>(num_tiles, 1));
  int64_t t = 0;
  for (; t + kTokens <= num_tokens; t += kTokens) run_i8_panel_tokens<V, kTokens>(m, n, n_end, t, next);
  for (; t < num_tokens; ++t) run_i8_panel_tokens<V, 1>(m, n, n_end, t, next);
}

// A row of x as 16-bit integers less the zero point, zeros behind it.
template <class V>
void stage_i8_row(const int8_t* from, int64_t count, int32_t zero_point, int16_t* to) {
  const auto less = V::wset(static_cast<int16_t>(zero_point));
  int64_t k = 0;
  for (; k + V::kWords <= count; k += V::kWords) V::store_words(to + k, V::wsub(V::load_words(from + k), less));
  if (k == count) return;
  for (int64_t i = 0; i < V::kWords; ++i) {
    to[k + i] = k + i < count ? static_cast<int16_t>(from[k + i] - zero_point) : int16_t{0};
  }
}

template <class V>
void stage_i8_tokens(const MatmulOp& op, const Launch& launch, int64_t first, int64_t num_tokens, int16_t* to,
                     int64_t stride) {
  const auto stage = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t at = op.x.format.granularity == Granularity::kToken ? first + t : 0;
      const int32_t zero_point = op.x.format.zero_point ? op.x.zero_point.data<int32_t>()[at] : 0;
      stage_i8_row<V>(op.x.data.row<int8_t>(first + t), op.x.data.dim(1), zero_point, to + t * stride);
    }
  };
  constexpr int64_t kSerial = 8;  // fewer are staged faster than threads are woken
  if (num_tokens <= kSerial) return stage(0, num_tokens);
  const int num_threads = launch.threads->num_threads();
  launch.threads->run([&](int thread) {
    const auto [begin, end] = share_of(num_tokens, 1, thread, num_threads);
    stage(begin, end);
  });
}

template <class V>
void run_i8_tokens(const MatmulOp& op, const Launch& launch, int64_t first, int64_t num_tokens) {
  const int64_t num_k = op.x.data.dim(1);
  const int64_t stride = staged_words((num_k + V::kWords - 1) / V::kWords * V::kWords);
  auto* x = reinterpret_cast<int16_t*>(launch.scratch->get(0, num_tokens * stride * int64_t{sizeof(int16_t)}));
  stage_i8_tokens<V>(op, launch, first, num_tokens, x, stride);
  const MatmulI8View m{.weight = op.weight.data.data<int8_t>(),
                       .num_k = num_k,
                       .x = x,
                       .x_stride = stride,
                       .out = op.out.row<float>(first),
                       .out_stride = op.out.row_stride,
                       .scales = output_scales(op, first)};
  const bool direct = num_tokens <= MatmulI8Config::kTileTokens;
  constexpr int64_t kMostRows = MatmulI8Config::kMostDirectRows;
  const int64_t direct_rows = std::max<int64_t>(1, MatmulConfig::kDirectBytes / (num_k * kMostRows)) * kMostRows;
  StealingShares shares(op.weight.data.dim(0), direct ? direct_rows : MatmulI8Config::kPanelRows,
                        launch.threads->num_threads());
  const ReadAhead::Matrix* matrix = begin_read_ahead(op, launch, direct_rows);
  launch.threads->run([&](int thread) {
    shares.run(thread, [&](int64_t begin, int64_t end) {
      if (direct) {
        run_i8_direct<V>(m, num_tokens, begin, end);
      } else {
        run_i8_panel<V>(m, num_tokens, begin, end);
      }
    });
    if (matrix) launch.read_ahead->end(matrix, thread);
  });
}

template <class V>
void run_matmul_i8(const MatmulOp& op, const Launch& launch) {
  for (int64_t t = 0; t < op.x.data.dim(0); t += MatmulConfig::kMaxStaged) {
    run_i8_tokens<V>(op, launch, t, std::min(MatmulConfig::kMaxStaged, op.x.data.dim(0) - t));
  }
}

}  // namespace octet
