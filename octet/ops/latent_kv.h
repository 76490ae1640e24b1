// What a token of multi-head latent attention (DeepSeek-AI 2024) leaves in the cache, and its queries' rotated part.
//   latent = RMSNorm(kv[t, 0 .. L)) * norm;  key = kv[t, L .. L + R) rotated: one for all heads
//   cache[slot_mapping[t]] = (latent, key) / scale in the cache's dtype (saturating for 8 bits); a negative slot writes
//   nothing. The values of attention are the latent: the cache holds no others.
//   q_out[t, h, L .. L + R) = q[t, h, P .. P + R) rotated
// Rotation turns the pairs (2 i, 2 i + 1) (kNeighbours, DeepSeek's own layout) or (i, i + R/2) (kHalves) by the angle
// i; the result lies as halves either way, of queries and keys alike, whose product that does not change.
// kv [T, L + R], q [T, H * (P + R)], q_out [T, H * (L + R)] of one dtype f32|bf16 (kv's rows may be strided); norm [L]
// f32; cos, sin [T, R/2] f32; cache [num_blocks, 1, block_size, L + R] f32|bf16|f8_e4m3|f8_e5m2; slot_mapping [T] i32.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct LatentKvOp {
  static constexpr std::string_view kName = "latent_kv";
  Tensor q_out;
  Tensor cache;
  ConstTensor q;
  ConstTensor kv;
  ConstTensor norm;
  ConstTensor cos;
  ConstTensor sin;
  ConstTensor slot_mapping;
  enum class Pairs : uint8_t { kHalves, kNeighbours } pairs = Pairs::kNeighbours;
  float norm_epsilon = 1e-6f;
  float scale = 1.0f;

  int64_t latent_dim() const { return norm.dim(0); }
  int64_t rotated_dim() const { return 2 * cos.dim(1); }
  int64_t cached_dim() const { return latent_dim() + rotated_dim(); }
  int64_t block_size() const { return cache.dim(2); }
  int64_t num_heads() const { return q_out.dim(1) / cached_dim(); }
  int64_t query_dim() const { return q.dim(1) / num_heads(); }  // P + R
  void check() const;
};

}  // namespace octet
