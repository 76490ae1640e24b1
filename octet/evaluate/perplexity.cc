#include "octet/evaluate/perplexity.h"

#include <cmath>
#include <mutex>

#include "octet/evaluate/score.h"

namespace octet {

PerplexityResult perplexity(Engine& engine, std::span<const std::vector<int32_t>> windows,
                            const std::function<void(int64_t)>& on_window) {
  PerplexityResult result;
  double sum = 0.0, sum_of_squares = 0.0;  // of window means
  double total = 0.0;
  for (const std::vector<int32_t>& window : windows) {
    std::mutex mutex;
    double nll = 0.0;
    for_each_logits(engine, window, [&](int64_t position, std::span<const float> logits) {
      if (position + 1 >= static_cast<int64_t>(window.size())) return;
      const auto next = static_cast<size_t>(window[static_cast<size_t>(position) + 1]);
      const double loss = log_sum_exp(logits) - static_cast<double>(logits[next]);
      std::lock_guard lock(mutex);
      nll += loss;
    });
    const auto scored = static_cast<double>(window.size() - 1);
    total += nll;
    sum += nll / scored;
    sum_of_squares += (nll / scored) * (nll / scored);
    result.num_tokens += static_cast<int64_t>(window.size()) - 1;
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
