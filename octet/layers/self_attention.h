// Grouped-query self-attention as one half of a decoder layer: norm, fused q, k and v, attention over the cache, output
// projection.
#pragma once

#include "octet/layers/attention.h"
#include "octet/layers/sublayer.h"

namespace octet {

struct SelfAttentionOptions {
  AttentionOptions attention;
  bool qkv_bias = false;
  bool o_bias = false;
};

// [hidden_size, k], split along k.
LinearRequest row_request(const std::string& name, int64_t hidden_size, int64_t k, bool bias);

class SelfAttention final : public Sublayer {
 public:
  // weights: the cursor of the layer, with "input_layernorm" and "self_attn".
  SelfAttention(const ModelConfig& config, const Weights& weights, const SelfAttentionOptions& options);

  void operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const override;
  int64_t scratch_bytes(int64_t num_tokens) const override;
  void describe(std::vector<LinearRow>& rows) const override;

 private:
  ColumnLinear qkv_proj_;
  Attention attention_;
  RowLinear o_proj_;
};

}  // namespace octet
