// How far a model's next-token distribution is from a reference model's, position by position over the same text:
// KL(reference || model) in nats, and how often both have the same most likely token. Both models run in lock-step,
// window by window, on full F32 logits; nothing is truncated.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/sampling/logit_divergence.h"

namespace octet {

struct KlDivergenceResult {
  double mean = 0.0;
  double standard_error = 0.0;  // clustered by window
  double median = 0.0, p99 = 0.0, max = 0.0;
  double top1_agreement = 0.0;  // share of positions, 0..1
  double perplexity = 0.0;      // of the model, and of the reference, on the same windows
  double reference_perplexity = 0.0;
  int64_t num_tokens = 0;  // positions compared
  int64_t num_windows = 0;
};

// Throws Error{kInvalid} when the vocabularies differ in size.
KlDivergenceResult kl_divergence(Engine& model, Engine& reference, std::span<const std::vector<int32_t>> windows,
                                 const std::function<void(int64_t done)>& on_window = nullptr);

}  // namespace octet
