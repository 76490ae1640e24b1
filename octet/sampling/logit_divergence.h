// How far two rows of logits are from each other.
#pragma once

#include <span>

namespace octet {

// log(sum(exp(logits))) in double.
double log_sum_exp(std::span<const float> logits);

// KL(p || q) of two rows of logits, whether their arguments of the maximum are equal, and log_sum_exp of both.
struct RowDivergence {
  double kl = 0.0;
  bool same_top1 = false;
  double reference_log_sum_exp = 0.0, log_sum_exp = 0.0;
};
RowDivergence row_divergence(std::span<const float> reference_logits, std::span<const float> logits);

}  // namespace octet
