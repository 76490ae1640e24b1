// Few tokens: weights go from memory through the decoding straight into the FMAs of all tokens, rows of a few at a
// time.
#pragma once

#include <algorithm>

#include "octet/kernels/cpu/matmul_weights.h"

namespace octet {

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

}  // namespace octet
