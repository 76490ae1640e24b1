// Step: all that one forward pass may touch, passed explicitly. The successor of every global context.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "octet/device/arena.h"
#include "octet/device/comm.h"
#include "octet/kv/kv_cache.h"
#include "octet/ops/ops.h"

namespace octet {

// The tokens of one step: any mix of prefill chunks and decodes. T tokens of S sequences, R rows whose logits are
// wanted.
struct Batch {
  ConstTensor token_ids;     // [T] i32
  ConstTensor positions;     // [T] i32
  ConstTensor slot_mapping;  // [T] i32: where each token's K and V go
  ConstTensor query_start;   // [S + 1] i32: first row of each sequence, then T
  ConstTensor seq_lens;      // [S] i32: tokens in the cache after this step
  ConstTensor block_table;   // [S, B] i32
  int64_t num_tokens() const { return token_ids.dim(0); }
};

// Which tokens Step::observe_input sees as an expert's inputs: those that the router sends to it, or all of the step.
enum class ObservedExperts : uint8_t { kRouted, kAll };

struct Step {
  const Backend& backend;
  Arena& arena;
  const KvCache& kv;
  Comm& comm;
  Batch batch;
  // Called with intermediate activations by name ("layers.3.output"); set by golden tests and evaluation.
  std::function<void(std::string_view name, ConstTensor value)> observe;
  // Called with the input [T, K] of every linear that takes it unquantised, by the linear's name; set by calibration.
  std::function<void(std::string_view linear, ConstTensor input)> observe_input;
  // With kAll, of the CPU only, what the model computes is the same; it only takes longer.
  ObservedExperts observed_experts = ObservedExperts::kRouted;
  // The residual stream [T, hidden_size] that the layers before this model's left, in the activation dtype; changed in
  // place. Empty for a model that embeds tokens itself.
  Tensor residual;

  Tensor make(Shape shape) const { return arena.make(backend.activation_dtype(), shape); }
};

}  // namespace octet
