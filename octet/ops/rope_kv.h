// Query/key norm (where a model has it), rotary embedding, and the write of K and V into the paged cache, in one op.
//   q, k: per head, first RMSNorm over head_dim with q_norm / k_norm (if given), then rotate_half RoPE (Su et al. 2021,
//         HF's half-split layout) on the first R = 2 * cos.dim(1) elements.
//   q_out[t] = q; cache[slot_mapping[t]] = k / k_scale, v / v_scale in the cache's dtype (saturating for 8 bits);
//   a negative slot writes nothing.
// qkv [T, (Hq + 2 Hkv) * D] f32|bf16: q heads, k heads, v heads. q_out [T, Hq * D] in qkv's dtype, may be qkv's own q
// columns. k_cache, v_cache [num_blocks, Hkv, block_size, D] f32|bf16|f8_e4m3|f8_e5m2; slot = block * block_size +
// offset. cos, sin [T, R/2] f32; slot_mapping [T] i32; q_norm, k_norm [D] f32 or empty. k_head_scale, v_head_scale
// [Hkv] f32: a scale for each KV head, in place of k_scale and v_scale; or both empty.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct RopeKvOp {
  static constexpr std::string_view kName = "rope_kv";
  Tensor q_out;
  Tensor k_cache;
  Tensor v_cache;
  ConstTensor qkv;
  ConstTensor cos;
  ConstTensor sin;
  ConstTensor slot_mapping;
  ConstTensor q_norm;
  ConstTensor k_norm;
  float norm_epsilon = 1e-6f;
  float k_scale = 1.0f;
  float v_scale = 1.0f;
  ConstTensor k_head_scale;
  ConstTensor v_head_scale;

  int64_t num_kv_heads() const { return k_cache.dim(1); }
  int64_t block_size() const { return k_cache.dim(2); }
  int64_t head_dim() const { return k_cache.dim(3); }
  int64_t num_heads() const { return q_out.dim(1) / head_dim(); }
  float k_scale_of(int64_t kv_head) const { return k_head_scale ? k_head_scale.data<float>()[kv_head] : k_scale; }
  float v_scale_of(int64_t kv_head) const { return v_head_scale ? v_head_scale.data<float>()[kv_head] : v_scale; }
  void check() const;
};

}  // namespace octet
