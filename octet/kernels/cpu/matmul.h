// Matrix product for every number of tokens, weights decoded in registers.
//
// Order of K: each output (t, n) has one vector accumulator; lane l adds the products of k = l, l + kLanes, ... in
// order with FMA, and V::sum4 adds the lanes. No tiling, thread count or T changes that, so a row's bits depend on its
// own x only.
//
// FP8 weights enter the FMA as value * 2^-120 (their bits moved to F32's place) while there are few tokens, so x is
// staged times 2^64 and the sum taken times 2^56: subnormal codes come out exact and no product drops below F32's
// range. With more tokens the panel holds true values (an FMA with a subnormal input costs about 100 cycles, the panel
// pays it once). Powers of two change no mantissa: both give the same bits as long as sums of x * q stay below 2^60.
// E4M3 NaN codes in weights are not looked for here (they read as +-480): loading refuses them.
#pragma once

#include <algorithm>
#include <string>

#include "octet/kernels/cpu/split.h"
#include "octet/kernels/cpu/vector_math.h"
#include "octet/ops/ops.h"

namespace octet {

struct MatmulConfig {
  static constexpr int64_t kTokenBlock = 64;       // tokens whose x stays in L2 while a thread walks its weights
  static constexpr int64_t kChunk = 768;           // k per pass: a panel of 3 rows and the x of 4 tokens stay in L1
  static constexpr int64_t kMaxStaged = 256;       // tokens of x staged at once
  static constexpr int64_t kRowGrain = 24;         // threads' shares of N are multiples of it
  static constexpr int64_t kPrefetchBytes = 2048;  // beyond the rows after these
  static constexpr int kPanelRows = 3;
  static constexpr int kTileTokens = 4;
};

// A matmul as the inner loops see it. x has zeros up to a multiple of kLanes behind each row of num_k.
template <class W>
struct MatmulView {
  const W* weight;
  int64_t num_k;
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
  float sum_factor;      // of the raw sum: undoes staging and decoding
  const float* x_scale;  // per token (x_scale_step 1), one (0)
  int64_t x_scale_step;
  const float* w_scale;
  int64_t w_scale_step;
  const float* bias;  // or null
};

// R rows from n times T tokens from t, over k in [k_begin, k_end).
struct MatmulTile {
  int64_t n;
  int64_t t;
  int64_t k_begin;
  int64_t k_end;
  float* panel;  // F32 weights [R][kChunk], or null
  float* sums;   // accumulators carried between chunks [R][T][kLanes], or null
};

enum class WeightSource { kDecode, kDecodeToPanel, kPanel };

template <class V, int R, int T, class W>
[[gnu::always_inline]] inline void finish_tile(const MatmulView<W>& m, const MatmulTile& tile,
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
    const float scale_x = m.x_scale[(tile.t + t) * m.x_scale_step];
    float* out = m.out + (tile.t + t) * m.out_stride + tile.n;
    for (int r = 0; r < R; ++r) {
      const float scale = scale_x * m.w_scale[(tile.n + r) * m.w_scale_step];
      const float value = totals[r * T + t] * m.sum_factor * scale;
      out[r] = m.bias ? value + m.bias[tile.n + r] : value;
    }
  }
}

// The next vectors of R weight rows (`count` of their elements valid) times those of T tokens, added to sums. Panels
// are read at once and x streamed past them; decoded weights go into their FMAs one by one, or registers run out.
template <class V, int R, int T, WeightSource kSource, class W>
[[gnu::always_inline]] inline void step_tile(const W* weight, int64_t num_k, float* panel, const float* x,
                                             int64_t x_stride, int64_t count, typename V::Float (&sums)[R * T]) {
  if constexpr (kSource == WeightSource::kPanel) {
    typename V::Float w[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) w[r] = V::load(panel + r * MatmulConfig::kChunk);
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
      const auto a = V::load(x + t * x_stride);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r * T + t] = V::fma(w[r], a, sums[r * T + t]);
    }
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      auto w = count == V::kLanes ? V::load(weight + r * num_k) : load_partial<V>(weight + r * num_k, count);
      if constexpr (kSource == WeightSource::kDecodeToPanel) {
        if constexpr (kLoadScale<W> != 1.0f) w = V::mul(w, V::set(kLoadScale<W>));
        V::store(panel + r * MatmulConfig::kChunk, w);
      }
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) sums[r * T + t] = V::fma(w, V::load(x + t * x_stride), sums[r * T + t]);
    }
  }
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

template <class V, int R, int T, WeightSource kSource, class W>
void run_tile(const MatmulView<W>& m, const MatmulTile& tile) {
  constexpr int kLanes = V::kLanes;
  typename V::Float sums[R * T];
#pragma GCC unroll 16
  for (int i = 0; i < R * T; ++i) sums[i] = tile.k_begin == 0 ? V::zero() : V::load(tile.sums + i * kLanes);
  const W* weight = m.weight + tile.n * m.num_k + tile.k_begin;
  const float* x = m.x + tile.t * m.x_stride + tile.k_begin;
  const int64_t count = tile.k_end - tile.k_begin;
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    if constexpr (kSource != WeightSource::kPanel) prefetch_rows<R * kLanes>(weight + R * (m.num_k + k));
    step_tile<V, R, T, kSource>(weight + k, m.num_k, tile.panel + k, x + k, m.x_stride, kLanes, sums);
  }
  if (k < count) step_tile<V, R, T, kSource>(weight + k, m.num_k, tile.panel + k, x + k, m.x_stride, count - k, sums);
  if (tile.k_end < m.num_k) {
#pragma GCC unroll 16
    for (int i = 0; i < R * T; ++i) V::store(tile.sums + i * kLanes, sums[i]);
  } else {
    finish_tile<V, R, T>(m, tile, sums);
  }
}

// Up to four tokens: each weight is decoded once, straight into the FMAs.
template <class V, int R, int T, class W>
void run_rows_direct(const MatmulView<W>& m, int64_t token, int64_t begin, int64_t end) {
  int64_t n = begin;
  const auto tile = [&] {
    return MatmulTile{.n = n, .t = token, .k_begin = 0, .k_end = m.num_k, .panel = nullptr, .sums = nullptr};
  };
  for (; n + R <= end; n += R) run_tile<V, R, T, WeightSource::kDecode>(m, tile());
  for (; n < end; ++n) run_tile<V, 1, T, WeightSource::kDecode>(m, tile());
}

template <class V, class W>
void run_direct(const MatmulView<W>& m, int64_t num_tokens, int64_t begin, int64_t end) {
  switch (num_tokens) {
    case 1:
      return run_rows_direct<V, 8, 1>(m, 0, begin, end);
    case 2:
      return run_rows_direct<V, 4, 2>(m, 0, begin, end);
    case 3:
      return run_rows_direct<V, 3, 3>(m, 0, begin, end);
    default:
      return run_rows_direct<V, 2, 4>(m, 0, begin, end);
  }
}

template <class V, int R, WeightSource kSource, class W>
[[gnu::always_inline]] inline void run_tokens(const MatmulView<W>& m, const MatmulTile& tile, int64_t num_tokens) {
  switch (num_tokens) {
    case 1:
      return run_tile<V, R, 1, kSource>(m, tile);
    case 2:
      return run_tile<V, R, 2, kSource>(m, tile);
    case 3:
      return run_tile<V, R, 3, kSource>(m, tile);
    default:
      return run_tile<V, R, 4, kSource>(m, tile);
  }
}

// R rows times a block of tokens: the first tile of tokens decodes the weights to the panel, the others read it.
template <class V, int R, class W>
void run_panel(const MatmulView<W>& m, int64_t n, int64_t t_begin, int64_t t_end, float* panel, float* sums) {
  constexpr int64_t kTile = MatmulConfig::kTileTokens;
  for (int64_t k = 0; k < m.num_k; k += MatmulConfig::kChunk) {
    const int64_t k_end = std::min(k + MatmulConfig::kChunk, m.num_k);
    for (int64_t t = t_begin; t < t_end; t += kTile) {
      const MatmulTile tile{
          .n = n, .t = t, .k_begin = k, .k_end = k_end, .panel = panel, .sums = sums + (t - t_begin) * R * V::kLanes};
      const int64_t count = std::min(kTile, t_end - t);
      if (t == t_begin) {
        run_tokens<V, R, WeightSource::kDecodeToPanel>(m, tile, count);
      } else {
        run_tokens<V, R, WeightSource::kPanel>(m, tile, count);
      }
    }
  }
}

template <class V>
constexpr int64_t matmul_panel_bytes() {
  return MatmulConfig::kPanelRows * (MatmulConfig::kChunk + MatmulConfig::kTokenBlock * V::kLanes) *
         int64_t{sizeof(float)};
}

template <class V, class W>
void run_blocked(const MatmulView<W>& m, int64_t num_tokens, int64_t begin, int64_t end, std::byte* scratch) {
  constexpr int R = MatmulConfig::kPanelRows;
  auto* panel = reinterpret_cast<float*>(scratch);
  float* sums = panel + R * MatmulConfig::kChunk;
  for (int64_t t = 0; t < num_tokens; t += MatmulConfig::kTokenBlock) {
    const int64_t t_end = std::min(t + MatmulConfig::kTokenBlock, num_tokens);
    int64_t n = begin;
    for (; n + R <= end; n += R) run_panel<V, R>(m, n, t, t_end, panel, sums);
    for (; n < end; ++n) run_panel<V, 1>(m, n, t, t_end, panel, sums);
  }
}

// Whether x goes through scratch: as F32, scaled for FP8 weights, zeros behind its rows.
template <class V>
bool must_stage(const MatmulOp& op) {
  return op.x.data.dtype != DType::kF32 || op.weight.data.dtype == DType::kF8E4M3 || op.x.data.dim(1) % V::kLanes != 0;
}

template <class V>
void stage_rows(const MatmulOp& op, float factor, int64_t begin, int64_t end, float* to, int64_t stride) {
  const int64_t num_k = op.x.data.dim(1);
  for (int64_t t = begin; t < end; ++t, to += stride) {
    if (op.x.data.dtype == DType::kF32) {
      convert_row<V>(op.x.data.row<float>(t), num_k, factor, to);
    } else {
      convert_row<V>(op.x.data.row<F8E4M3>(t), num_k, factor, to);
    }
  }
}

template <class V, class W>
void run_matmul_tokens(const MatmulOp& op, const Launch& launch, int64_t first, int64_t num_tokens) {
  constexpr bool kScaled = std::is_same_v<W, F8E4M3>;
  const float stage_factor = kScaled ? 0x1p64f : 1.0f;
  const float one = 1.0f;
  const int64_t num_k = op.x.data.dim(1);
  const int64_t num_n = op.weight.data.dim(0);
  const bool staged = must_stage<V>(op);
  const int64_t stride = (num_k + V::kLanes - 1) / V::kLanes * V::kLanes;
  const int64_t staged_bytes = staged ? num_tokens * stride * int64_t{sizeof(float)} : 0;
  // Thread 0's buffer: the staged x of all threads, then its own panel.
  std::byte* scratch = launch.scratch->get(0, staged_bytes + matmul_panel_bytes<V>());
  auto* staged_x = reinterpret_cast<float*>(scratch);

  MatmulView<W> m{};
  m.weight = op.weight.data.data<W>();
  m.num_k = num_k;
  m.x = staged ? staged_x : op.x.data.row<float>(first);
  m.x_stride = staged ? stride : op.x.data.row_stride;
  m.out = op.out.row<float>(first);
  m.out_stride = op.out.row_stride;
  const bool direct = num_tokens <= MatmulConfig::kTileTokens;
  m.sum_factor = !kScaled ? 1.0f : direct ? 0x1p56f : 0x1p-64f;
  m.x_scale_step = op.x.format.granularity == Granularity::kToken ? 1 : 0;
  m.x_scale = op.x.format.quantized() ? op.x.scale.data<float>() + first * m.x_scale_step : &one;
  m.w_scale_step = op.weight.format.granularity == Granularity::kChannel ? 1 : 0;
  m.w_scale = op.weight.format.quantized() ? op.weight.scale.data<float>() : &one;
  m.bias = op.bias ? op.bias.data<float>() : nullptr;

  const int num_threads = launch.threads->num_threads();
  if (staged) {
    if (num_tokens <= 8) {
      stage_rows<V>(op, stage_factor, first, first + num_tokens, staged_x, stride);
    } else {
      launch.threads->run([&](int thread) {
        const auto [begin, end] = share_of(num_tokens, 1, thread, num_threads);
        stage_rows<V>(op, stage_factor, first + begin, first + end, staged_x + begin * stride, stride);
      });
    }
  }
  launch.threads->run([&](int thread) {
    const auto [begin, end] = share_of(num_n, MatmulConfig::kRowGrain, thread, num_threads);
    if (begin == end) return;
    if (direct) return run_direct<V>(m, num_tokens, begin, end);
    std::byte* own = thread == 0 ? scratch + staged_bytes : launch.scratch->get(thread, matmul_panel_bytes<V>());
    run_blocked<V>(m, num_tokens, begin, end, own);
  });
}

template <class V>
void run_matmul(const MatmulOp& op, const Launch& launch) {
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
      default:
        run_matmul_tokens<V, F8E4M3>(op, launch, t, count);
        break;
    }
  }
}

template <class V>
std::string matmul_declines(const MatmulOp& op, const Launch& launch) {
  if (!V::available(launch.features)) return std::string(V::kMissing);
  const DType x = op.x.data.dtype;
  const DType w = op.weight.data.dtype;
  const Granularity gx = op.x.format.granularity;
  const Granularity gw = op.weight.format.granularity;
  if (op.out.dtype != DType::kF32) return "out must be f32";
  const bool plain_x = x == DType::kF32 && gx == Granularity::kNone;
  const bool f8_x = x == DType::kF8E4M3 && (gx == Granularity::kToken || gx == Granularity::kTensor);
  if (!plain_x && !f8_x) return "x must be f32 or f8_e4m3 per token or tensor";
  const bool plain_w = (w == DType::kF32 || w == DType::kBF16 || w == DType::kF16) && gw == Granularity::kNone;
  const bool f8_w = w == DType::kF8E4M3 && (gw == Granularity::kChannel || gw == Granularity::kTensor);
  if (!plain_w && !f8_w) return "weight must be f32, bf16, f16, or f8_e4m3 per tensor or channel";
  return {};
}

}  // namespace octet
