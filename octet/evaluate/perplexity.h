// Perplexity: exp of the mean negative log-likelihood of each token given those before it in its window. The first
// token of a window is not scored (as in Hugging Face's fixed-length evaluation without overlap).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "octet/engine/engine.h"

namespace octet {

struct PerplexityResult {
  double perplexity = 0.0;
  double mean_nll = 0.0;        // nats per token
  double standard_error = 0.0;  // of mean_nll, over windows
  int64_t num_tokens = 0;       // scored
  int64_t num_windows = 0;
};

PerplexityResult perplexity(Engine& engine, std::span<const std::vector<int32_t>> windows,
                            const std::function<void(int64_t done)>& on_window = nullptr);

}  // namespace octet
