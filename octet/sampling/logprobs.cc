#include "octet/sampling/logprobs.h"

namespace octet {

PositionLogprobs position_logprobs(std::span<const float> row, int32_t token_id, int32_t num_alternatives,
                                   SamplingScratch& scratch) {
  const double log_sum = row_log_sum_exp(row, row_max(row));
  const float value = row[static_cast<size_t>(token_id)];
  PositionLogprobs result;
  result.push_back({.token_id = token_id,
                    .logprob = static_cast<float>(value - log_sum),
                    .rank = static_cast<int32_t>(1 + row_count_greater(row, value))});
  const int64_t count = num_alternatives < 0 ? static_cast<int64_t>(row.size()) : num_alternatives;
  top_k_sorted(row, count, scratch, scratch.sorted);
  int32_t rank = 0;
  for (size_t i = 0; i < scratch.sorted.size(); ++i) {
    const Candidate& candidate = scratch.sorted[i];
    if (i == 0 || candidate.value < scratch.sorted[i - 1].value) rank = static_cast<int32_t>(i) + 1;
    result.push_back(
        {.token_id = candidate.token_id, .logprob = static_cast<float>(candidate.value - log_sum), .rank = rank});
  }
  return result;
}

}  // namespace octet
