// Causal attention of a mixed batch over the paged cache: any number of new tokens per sequence (prefill, chunk,
// decode). Sequence s owns rows query_start[s] .. query_start[s+1] of q; they are its last tokens, the cache holds
// seq_lens[s] tokens (the new ones included). Query i of n sits at position p = seq_lens[s] - n + i and sees keys
// max(0, p - sliding_window + 1) .. p (sliding_window 0: from 0).
//   out = softmax(q . k * k_scale * softmax_scale) . v * v_scale
// q [T, Hq * D] f32|bf16 (rows may be strided); out [T, Hq * V] f32|bf16, V <= D; `quantized`, when it has data,
// receives out in its 8-bit format as well (see quantize.h), rounded to out's dtype before or not. k_cache, v_cache
// [num_blocks, Hkv, block_size, D], of whose rows v is the first V elements; query head h reads KV head h / (Hq / Hkv).
// Latent attention has keys and values in one cache, of which values are the beginning. block_table [S, B] i32;
// query_start [S + 1] i32; seq_lens [S] i32; k_head_scale, v_head_scale [Hkv] f32 in place of k_scale and v_scale, or
// both empty. A row's bits depend on its own query and keys only, neither on the batch nor on how the prompt was cut
// into chunks; but for the GPU's fastest rows, which cut keys by the batch.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct PagedAttentionOp {
  static constexpr std::string_view kName = "paged_attention";
  Tensor out;
  QuantTensor quantized;
  ConstTensor q;
  ConstTensor k_cache;
  ConstTensor v_cache;
  ConstTensor query_start;
  ConstTensor seq_lens;
  ConstTensor block_table;
  float softmax_scale = 1.0f;
  float k_scale = 1.0f;
  float v_scale = 1.0f;
  ConstTensor k_head_scale;
  ConstTensor v_head_scale;
  int64_t sliding_window = 0;

  int64_t num_kv_heads() const { return k_cache.dim(1); }
  int64_t block_size() const { return k_cache.dim(2); }
  int64_t head_dim() const { return k_cache.dim(3); }
  int64_t num_heads() const { return q.dim(1) / head_dim(); }
  int64_t value_dim() const { return out.dim(1) / num_heads(); }
  int64_t num_sequences() const { return seq_lens.dim(0); }
  float k_scale_of(int64_t kv_head) const { return k_head_scale ? k_head_scale.data<float>()[kv_head] : k_scale; }
  float v_scale_of(int64_t kv_head) const { return v_head_scale ? v_head_scale.data<float>()[kv_head] : v_scale; }
  void check() const;
};

}  // namespace octet
