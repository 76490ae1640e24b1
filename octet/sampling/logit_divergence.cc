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
  const auto top_p = std::max_element(reference_logits.begin(), reference_logits.end());
  const auto top_q = std::max_element(logits.begin(), logits.end());
  double p_sum = 0.0, q_sum = 0.0, difference = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double of_p = reference_logits[i], of_q = logits[i];
    const double p = std::exp(of_p - static_cast<double>(*top_p));
    p_sum += p;
    q_sum += std::exp(of_q - static_cast<double>(*top_q));
    if (p > 0.0) difference += p * (of_p - of_q);
  }
  const double p_norm = static_cast<double>(*top_p) + std::log(p_sum);
  const double q_norm = static_cast<double>(*top_q) + std::log(q_sum);
  return {.kl = difference / p_sum - (p_norm - q_norm),
          .same_top1 = top_p - reference_logits.begin() == top_q - logits.begin(),
          .reference_log_sum_exp = p_norm,
          .log_sum_exp = q_norm};
}

}  // namespace octet
