// Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2) as one half of a decoder layer. The cache holds one
// compressed vector of each token, its latent of kv_lora_rank numbers and one rotated key of qk_rope_head_dim, for all
// heads. Attention runs in the latent's space (the absorbed form): kv_b_proj's key half goes into the queries, its
// value half behind attention, so that no key or value of a head is ever made:
//   q . k = (W_k^T q_nope) . latent + q_rope . key,   out = W_v (softmax . latent)
// As in Hugging Face's modeling_deepseek_v2 and modeling_deepseek_v3, which expand the latents instead.
#pragma once

#include <optional>

#include "octet/layers/self_attention.h"

namespace octet {

struct LatentAttentionOptions {
  int64_t num_heads = 0;    // of all ranks
  int64_t q_lora_rank = 0;  // 0: queries are not compressed
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t layer = 0;  // of the KV cache
  float softmax_scale = 1.0f;
  bool bias = false;  // of q_a_proj, kv_a_proj_with_mqa and o_proj
  LatentKvOp::Pairs pairs = LatentKvOp::Pairs::kNeighbours;

  int64_t cached_dim() const { return kv_lora_rank + qk_rope_head_dim; }
  int64_t query_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
};

class LatentAttention final : public Sublayer {
 public:
  // weights: the cursor of the layer, with "input_layernorm" and "self_attn". Throws Error{kUnsupported} for heads that
  // ranks cannot share.
  LatentAttention(const ModelConfig& config, const Weights& weights, const LatentAttentionOptions& options);

  void operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const override;
  int64_t scratch_bytes(int64_t num_tokens) const override;
  void describe(std::vector<LinearRow>& rows) const override;

 private:
  // Queries of this rank's heads [T, H * (P + R)], of what `down_` made.
  Tensor queries(Step& step, Tensor down) const;
  Tensor attend(Step& step, Tensor q) const;
  // Shows step.observe_input what kv_b_proj would read, were it run as a linear: the normalised latents.
  void observe_latents(Step& step, Tensor latents) const;

  LatentAttentionOptions options_;
  int64_t num_heads_;  // of this rank
  ColumnLinear down_;  // what reads the residual: queries or their latents, then kv_a_proj_with_mqa
  std::optional<RmsNorm> q_norm_;
  std::optional<ColumnLinear> q_up_;
  Tensor kv_norm_;
  HeadProjections up_;  // kv_b_proj, real numbers
  RowLinear o_proj_;
};

}  // namespace octet
