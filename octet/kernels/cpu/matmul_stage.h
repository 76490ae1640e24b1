// x on its way to the products: as F32, in the order of K that the weights are decoded in, zeros behind each row. Row
// by row for few tokens; for panels packed by residue and by tiles of tokens.
#pragma once

#include <algorithm>
#include <cstring>

#include "octet/kernels/cpu/matmul_weights.h"

namespace octet {

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

// Columns [k, k + count) of token t, of one group if x has groups.
template <class V, class W>
void stage_columns(const MatmulOp& op, int64_t t, int64_t k, int64_t count, float factor, float* to) {
  const auto stage = [&](const auto* from, float by) {
    if constexpr (WeightLoad<V, W>::kQuads) {
      stage_quads<V>(from, count, by, to);
    } else {
      convert_row<V>(from, count, by, to);
    }
  };
  if (op.x.data.dtype == DType::kF32) return stage(op.x.data.row<float>(t) + k, factor);
  const bool grouped = op.x.format.granularity == Granularity::kGroup;
  const float scale = grouped ? op.x.scale.row<float>(t)[k / op.x.format.group_cols] : 1.0f;
  stage(op.x.data.row<F8E4M3>(t) + k, factor * scale);
}

// Tokens from `first`, row by row.
template <class V, class W>
void stage_rows(const MatmulOp& op, float factor, int64_t first, int64_t num_tokens, float* to, int64_t stride) {
  const int64_t num_k = op.x.data.dim(1);
  const int64_t width = op.x.format.granularity == Granularity::kGroup ? op.x.format.group_cols : num_k;
  for (int64_t t = 0; t < num_tokens; ++t, to += stride) {
    for (int64_t k = 0; k < num_k; k += width) {
      stage_columns<V, W>(op, first + t, k, std::min(width, num_k - k), factor, to + k);
    }
  }
}

// All tokens, shared among the threads.
template <class V, class W>
void stage_tokens(const MatmulOp& op, const Launch& launch, float factor, int64_t num_tokens, float* to,
                  int64_t stride) {
  constexpr int64_t kSerial = 8;  // fewer are staged faster than threads are woken
  if (num_tokens <= kSerial) return stage_rows<V, W>(op, factor, 0, num_tokens, to, stride);
  const int num_threads = launch.threads->num_threads();
  launch.threads->run([&](int thread) {
    const auto [begin, end] = share_of(num_tokens, 1, thread, num_threads);
    stage_rows<V, W>(op, factor, begin, end - begin, to + begin * stride, stride);
  });
}

// x packed for panels: [residue][tile][step][kTileTokens].
struct PackedTokens {
  float* data;
  int64_t num_tiles;
  int64_t num_steps;

  float* at(int64_t residue, int64_t tile) const {
    return data + (residue * num_tiles + tile) * num_steps * MatmulConfig::kTileTokens;
  }
  int64_t residue_stride() const { return num_tiles * num_steps * MatmulConfig::kTileTokens; }
};

// One tile: the tokens from `first`, zeros in place of those that are missing.
template <class V, class W>
void pack_tile(const MatmulOp& op, float factor, int64_t first, int64_t num_tokens, float* to, int64_t residue_stride) {
  constexpr int kTokens = MatmulConfig::kTileTokens, kCount = WeightColumns<V, W>::kCount;
  static_assert(kTokens == 4);
  const int64_t num_k = op.x.data.dim(1);
  alignas(64) float part[kTokens][kCount] = {};
  for (int64_t k = 0; k < num_k; k += kCount) {
    const int64_t count = std::min<int64_t>(kCount, num_k - k);
    for (int64_t t = 0; t < num_tokens; ++t) {
      if (count < kCount) std::fill_n(part[t], kCount, 0.0f);
      stage_columns<V, W>(op, first + t, k, count, factor, part[t]);
    }
    for (int i = 0; i < kCount; i += V::kLanes, to += kTokens) {
      for (int residue = 0; residue < V::kLanes; residue += 4) {
        __m128 a = _mm_load_ps(part[0] + i + residue), b = _mm_load_ps(part[1] + i + residue),
               c = _mm_load_ps(part[2] + i + residue), d = _mm_load_ps(part[3] + i + residue);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(to + residue * residue_stride, a);
        _mm_storeu_ps(to + (residue + 1) * residue_stride, b);
        _mm_storeu_ps(to + (residue + 2) * residue_stride, c);
        _mm_storeu_ps(to + (residue + 3) * residue_stride, d);
      }
    }
  }
}

// Tokens from `first`, tiles shared among the threads.
template <class V, class W>
void pack_tokens(const MatmulOp& op, const Launch& launch, float factor, int64_t first, int64_t num_tokens,
                 const PackedTokens& to) {
  constexpr int64_t kTokens = MatmulConfig::kTileTokens;
  launch.threads->parallel_for(to.num_tiles, 2, [&](int, int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t t = tile * kTokens;
      pack_tile<V, W>(op, factor, first + t, std::min(kTokens, num_tokens - t), to.at(0, tile), to.residue_stride());
    }
  });
}

}  // namespace octet
