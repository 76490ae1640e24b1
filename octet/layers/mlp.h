// The gated feed-forward network, down_proj(silu(gate_proj(x)) * up_proj(x)), split over ranks along its intermediate
// channels; and as one half of a decoder layer.
#pragma once

#include "octet/layers/sublayer.h"

namespace octet {

struct MlpOptions {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  bool bias = false;
};

class GatedMlp {
 public:
  // weights: the cursor of the module, with "gate_proj", "up_proj" and "down_proj". Throws Error{kUnsupported} for
  // channels that ranks cannot share.
  GatedMlp(const Weights& weights, const MlpOptions& options);

  // What makes x, in its format.
  const Linear& input() const { return gate_up_proj_; }
  void operator()(Step& step, const Activation& x, Partial& out) const;
  int64_t scratch_bytes(int64_t num_tokens) const;  // x not included
  void describe(std::vector<LinearRow>& rows) const;

 private:
  GatedLinear gate_up_proj_;
  RowLinear down_proj_;
};

class Mlp final : public Sublayer {
 public:
  // weights: the cursor of the layer, with "post_attention_layernorm" and "mlp".
  Mlp(const Weights& weights, double rms_norm_eps, const MlpOptions& options);

  void operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const override;
  int64_t scratch_bytes(int64_t num_tokens) const override;
  void describe(std::vector<LinearRow>& rows) const override { mlp_.describe(rows); }

 private:
  GatedMlp mlp_;
};

}  // namespace octet
