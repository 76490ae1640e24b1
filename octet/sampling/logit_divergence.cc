#include "octet/sampling/logit_divergence.h"

#include <algorithm>
#include <cmath>

namespace octet {

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  return largest + std::log(sum);
}

RowDivergence row_divergence(std::span<const float> reference_logits, std::span<const float> logits) {
  const double p_norm = log_sum_exp(reference_logits), q_norm = log_sum_exp(logits);
  double kl = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double log_p = static_cast<double>(reference_logits[i]) - p_norm;
    const double log_q = static_cast<double>(logits[i]) - q_norm;
    const double p = std::exp(log_p);
    if (p > 0.0) kl += p * (log_p - log_q);
  }
  const auto top = [](std::span<const float> row) { return std::max_element(row.begin(), row.end()) - row.begin(); };
  return {.kl = kl, .same_top1 = top(reference_logits) == top(logits)};
}

}  // namespace octet
