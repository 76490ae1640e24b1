// The experts of one layer: gated feed-forward networks of one shape, of which every token has a few. Their matrices
// lie in two stacks, gate_up [E, 2I, H] and down [E, H, I].
//
// On disk, below the cursor of the module: <e>.{gate_proj,up_proj,down_proj}, <e>.{w1,w3,w2} (the same in this order),
// or gate_up_proj [E, 2I, H] and down_proj [E, H, I] in one tensor each. Every expert keeps its own scales, those of
// its input included.
//
// Over ranks: a share of every expert's intermediate channels, or whole experts (WeightSource::ExpertSplit). The
// outputs are this rank's share of a sum either way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "octet/layers/linear.h"

namespace octet {

struct ExpertsOptions {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_experts = 0;
  std::string count_key;  // of config.json, for errors: "num_local_experts"
};

// A stack of E linears, each multiplied by the rows of its expert.
class ExpertLinear {
 public:
  // requests: one for each expert of this rank. `modules`: their full names. n and k: of each on this rank.
  ExpertLinear(const Weights& weights, const std::vector<LinearRequest>& requests, const std::string& name, int64_t n,
               int64_t k);

  // Arena memory for an input of so many rows.
  QuantTensor make_input(Step& step, int64_t num_rows) const;
  int64_t input_bytes(int64_t num_rows) const;
  void multiply(Step& step, const ConstQuantTensor& x, const ConstExpertPlan& plan, Tensor out) const;
  // Shows an input to step.observe_input, as multiply does before it multiplies.
  void observe(Step& step, const ConstQuantTensor& x, const ConstExpertPlan& plan) const;
  LinearRow row() const;
  int64_t n() const { return loaded_.weight.data.dim(1); }
  int64_t k() const { return loaded_.weight.data.dim(2); }
  // True when x is dynamic per token and its columns lie on several ranks.
  bool shares_token_scale() const { return shares_token_scale_; }

 private:
  std::string name_;                // with * for the experts
  std::vector<std::string> names_;  // of each
  LoadedLinear loaded_;
  bool shares_token_scale_ = false;
};

class Experts {
 public:
  // weights: the cursor of the module ("model.layers.0.mlp.experts"). Throws Error{kModel} when the checkpoint has
  // another number of experts, or one twice.
  Experts(const Weights& weights, const ExpertsOptions& options);

  int64_t first_expert() const { return share_.first; }
  int64_t num_experts() const { return share_.count; }  // of this rank
  // [T * k, hidden_size] in the order of plan's rows, of x [T, hidden_size] f32|bf16.
  Tensor operator()(Step& step, ConstTensor x, const ConstExpertPlan& plan) const;
  // Shows step.observe_input every row of x as the input of every expert; computes nothing else. One expert at a time,
  // so that scratch_bytes holds. On the CPU only.
  void observe_all(Step& step, ConstTensor x) const;
  int64_t scratch_bytes(int64_t num_tokens, int64_t num_slots) const;  // at most, in the arena, the result included
  void describe(std::vector<LinearRow>& rows) const;

 private:
  struct Share {
    int64_t first = 0, count = 0;  // experts
    bool whole = true;             // or a share of their channels
  };
  static Share share_of(const WeightSource& source, const ExpertsOptions& options);
  struct Names;
  static Names names_of(const Weights& weights, const ExpertsOptions& options);
  enum class Stack : uint8_t { kGateUp, kDown };
  static ExpertLinear load(const Weights& weights, const ExpertsOptions& options, const Share& share, Stack stack);
  // silu(gate) * up of every row, as down wants it.
  ConstQuantTensor activate(Step& step, ConstTensor gate_up, const ConstExpertPlan& plan) const;
  // The same of x, in the arena.
  ConstQuantTensor down_input(Step& step, ConstTensor x, const ConstExpertPlan& plan) const;

  int64_t hidden_size_;
  Share share_;
  ExpertLinear gate_up_;
  ExpertLinear down_;
};

}  // namespace octet
