// Causal self-attention over the paged cache, between the fused qkv projection and the output projection.
#pragma once

#include <optional>

#include "octet/checkpoint/config.h"
#include "octet/layers/linear.h"
#include "octet/layers/rope.h"

namespace octet {

// The heads of one rank. Query heads are split evenly. KV heads are split too, or, when there are fewer than ranks,
// each is held by several ranks.
struct HeadShard {
  int64_t head_dim = 0;
  int64_t first_head = 0;
  int64_t num_heads = 0;
  int64_t first_kv_head = 0;
  int64_t num_kv_heads = 0;
};
// Throws Error{kUnsupported} when the heads do not divide.
HeadShard head_shard(const ModelConfig& config, int rank, int world_size);

// What the cache holds of one layer on this rank.
inline KvCacheLayout kv_layout_of(const HeadShard& heads) {
  return {.num_kv_heads = heads.num_kv_heads, .head_dim = heads.head_dim, .first_kv_head = heads.first_kv_head};
}

struct AttentionOptions {
  HeadShard heads;
  int64_t layer = 0;           // of the KV cache
  int64_t sliding_window = 0;  // 0: none
  double rms_norm_eps = 1e-6;  // of the query and key norms
  enum class HeadNorm : uint8_t { kNone, kQueryAndKey } head_norm = HeadNorm::kNone;
};

class Attention {
 public:
  // weights: the cursor of the module, for q_norm and k_norm.
  Attention(const Weights& weights, const AttentionOptions& options);

  // qkv [T, (Hq + 2 Hkv) * D] is used up (queries are rotated in place). The result [T, Hq * D] is in the consumer's
  // format.
  Activation operator()(Step& step, const RopeAngles& angles, Tensor qkv, const Linear& consumer) const;
  int64_t scratch_bytes(int64_t num_tokens) const;  // at most, in the arena, besides the consumer's input

 private:
  AttentionOptions options_;
  Tensor q_norm_;
  Tensor k_norm_;
};

}  // namespace octet
