// A mixture of experts as one half of a decoder layer: every token goes through a few of the layer's experts, which its
// router chooses, and perhaps through a shared expert as well, whose share of the result a gate may set.
#pragma once

#include <optional>
#include <string>

#include "octet/layers/experts.h"
#include "octet/layers/mlp.h"

namespace octet {

struct SparseMlpOptions {
  ExpertsOptions experts;
  int64_t experts_per_token = 0;
  ExpertRouting routing;
  std::string slots_key;        // of config.json, for errors: "num_experts_per_tok"
  bool has_correction = false;  // gate.e_score_correction_bias
  // The shared expert, a module below "mlp" ("shared_expert"); none when its size is 0.
  std::string shared_name = {};
  int64_t shared_intermediate_size = 0;
  std::string shared_gate_name = {};  // "shared_expert_gate", or none
};

// The logits' linear and what is done with them.
class Router {
 public:
  struct Routing {
    ConstTensor weights;
    ConstExpertPlan plan;
  };
  // weights: the cursor of the mixture, with "gate".
  Router(const Weights& weights, const SparseMlpOptions& options);

  // Of x [T, hidden_size] f32|bf16, for a rank's experts.
  Routing operator()(Step& step, ConstTensor x, int64_t first_expert, int64_t num_experts) const;
  int64_t scratch_bytes(int64_t num_tokens) const;  // at most, in the arena, the result included
  void describe(std::vector<LinearRow>& rows) const { rows.push_back(gate_.row()); }

 private:
  ColumnLinear gate_;
  Tensor correction_;
  ExpertRouting routing_;
  int64_t num_slots_;
};

class SparseMlp final : public Sublayer {
 public:
  // weights: the cursor of the layer, with "post_attention_layernorm" and the module `name` ("mlp",
  // "block_sparse_moe"). Throws Error{kModel} for sizes that make no mixture.
  SparseMlp(const ModelConfig& config, const Weights& weights, std::string_view name, const SparseMlpOptions& options);

  void operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const override;
  int64_t scratch_bytes(int64_t num_tokens) const override;
  void describe(std::vector<LinearRow>& rows) const override;

 private:
  ConstTensor shared_gate(Step& step, ConstTensor x) const;
  // The experts' outputs, observed as the step says.
  Tensor routed(Step& step, ConstTensor x, const ConstExpertPlan& plan) const;

  int64_t hidden_size_;
  int64_t num_slots_;
  Experts experts_;
  Router router_;
  std::optional<GatedMlp> shared_;
  std::optional<ColumnLinear> shared_gate_;
};

}  // namespace octet
