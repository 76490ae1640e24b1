#include "octet/evaluate/log_likelihood.h"

#include <algorithm>
#include <mutex>

#include "octet/base/error.h"
#include "octet/evaluate/score.h"

namespace octet {

EncodedPair encode_pair(const Tokenizer& tokenizer, const std::string& context, const std::string& continuation,
                        int64_t max_tokens) {
  if (context.empty()) fail(ErrorCode::kInvalid, "the context is empty; there is nothing to continue");
  const size_t end = context.find_last_not_of(" \t\n\r\v\f") + 1;
  const std::string stripped = context.substr(0, end);
  EncodedPair pair{.token_ids = tokenizer.encode(context + continuation, AddSpecialTokens::kYes),
                   .num_context = tokenizer.encode(stripped, AddSpecialTokens::kYes).size()};
  if (pair.num_context == 0 || pair.num_context >= pair.token_ids.size())
    fail(ErrorCode::kInvalid, "\"{}\" has no tokens of its own after its context", continuation);
  const auto size = static_cast<int64_t>(pair.token_ids.size());
  if (size > max_tokens) {
    const int64_t dropped = size - max_tokens;
    if (dropped >= static_cast<int64_t>(pair.num_context)) {
      fail(ErrorCode::kInvalid, "a continuation of {} tokens is longer than the model's context of {}",
           size - static_cast<int64_t>(pair.num_context), max_tokens);
    }
    pair.token_ids.erase(pair.token_ids.begin(), pair.token_ids.begin() + dropped);
    pair.num_context -= static_cast<size_t>(dropped);
  }
  return pair;
}

double log_likelihood(Engine& engine, const EncodedPair& pair) {
  std::mutex mutex;
  double sum = 0.0;
  // Nothing follows the last one.
  const auto asked = std::span(pair.token_ids).first(pair.token_ids.size() - 1);
  for_each_logits(engine, asked, [&](int64_t position, std::span<const float> logits) {
    const auto next = static_cast<size_t>(position) + 1;
    if (next < pair.num_context) return;
    const double loss = log_sum_exp(logits) - static_cast<double>(logits[static_cast<size_t>(pair.token_ids[next])]);
    const std::lock_guard lock(mutex);
    sum -= loss;
  });
  return sum;
}

}  // namespace octet
