#include "octet/evaluate/perplexity.h"

#include <cmath>
#include <mutex>

#include "octet/evaluate/score.h"

namespace octet {

PerplexityResult perplexity(Engine& engine, std::span<const ScoredWindow> windows,
                            const std::function<void(int64_t)>& on_window) {
  PerplexityResult result;
  double sum = 0.0, sum_of_squares = 0.0;  // of window means
  double total = 0.0;
  for (const ScoredWindow& scored : windows) {
    const std::vector<int32_t>& window = scored.token_ids;
    std::mutex mutex;
    double nll = 0.0;
    for_each_logits(engine, window, [&](int64_t position, std::span<const float> logits) {
      const size_t next = static_cast<size_t>(position) + 1;
      if (next < scored.first_scored || next >= window.size()) return;
      const double loss = log_sum_exp(logits) - static_cast<double>(logits[static_cast<size_t>(window[next])]);
      std::lock_guard lock(mutex);
      nll += loss;
    });
    const auto count = static_cast<double>(window.size() - scored.first_scored);
    total += nll;
    sum += nll / count;
    sum_of_squares += (nll / count) * (nll / count);
    result.num_tokens += static_cast<int64_t>(window.size() - scored.first_scored);
    ++result.num_windows;
    if (on_window) on_window(result.num_windows);
  }
  const auto n = static_cast<double>(result.num_windows);
  result.mean_nll = total / static_cast<double>(result.num_tokens);
  result.perplexity = std::exp(result.mean_nll);
  if (n > 1) result.standard_error = std::sqrt(std::max(0.0, (sum_of_squares - sum * sum / n) / (n - 1)) / n);
  return result;
}

}  // namespace octet
