// Perplexity: exp of the mean negative log-likelihood of each token given those before it in its window, in the two
// ways in which it is published:
//   windows without overlap (GPTQ's, SmoothQuant's): the first token of a window is not scored
//   a sliding window (Hugging Face's): every token but the first is scored once, after at least length - stride others
#pragma once

#include <functional>
#include <span>

#include "octet/engine/engine.h"
#include "octet/evaluate/windows.h"

namespace octet {

struct PerplexityResult {
  double perplexity = 0.0;
  double mean_nll = 0.0;        // nats per token
  double standard_error = 0.0;  // of mean_nll, over windows
  int64_t num_tokens = 0;       // scored
  int64_t num_windows = 0;
};

PerplexityResult perplexity(Engine& engine, std::span<const ScoredWindow> windows,
                            const std::function<void(int64_t done)>& on_window = nullptr);

}  // namespace octet
