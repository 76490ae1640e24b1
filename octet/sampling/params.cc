#include "octet/sampling/params.h"

#include <cmath>

#include "octet/base/error.h"

namespace octet {
namespace {

void check_range(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return;  // false for NaN
  fail(ErrorCode::kInvalid, "{}: must be between {} and {}, was {}", field, low, high, value);
}

void check_token(const char* field, int64_t id, int32_t vocab_size) {
  if (id >= 0 && id < vocab_size) return;
  fail(ErrorCode::kInvalid, "{}: token id {} is outside the vocabulary of {} tokens", field, id, vocab_size);
}

void check_logprobs(const char* field, const std::optional<int32_t>& value, int32_t max_logprobs) {
  if (!value || *value == -1) return;
  if (*value < 0 || *value > max_logprobs) {
    fail(ErrorCode::kInvalid, "{}: must be between 0 and {}, or -1 for the whole vocabulary; was {}", field,
         max_logprobs, *value);
  }
}

}  // namespace

void SamplingParams::validate(int32_t vocab_size, int32_t max_logprobs) const {
  constexpr int32_t kMaxN = 128;
  if (n < 1 || n > kMaxN) fail(ErrorCode::kInvalid, "n: must be between 1 and {}, was {}", kMaxN, n);
  check_range("temperature", temperature, 0.0, 1e6);
  if (greedy() && n > 1) fail(ErrorCode::kInvalid, "n: must be 1 with greedy sampling (temperature 0), was {}", n);
  check_range("top_p", top_p, 0.0, 1.0);
  if (top_p <= 0.0) fail(ErrorCode::kInvalid, "top_p: must be greater than 0, was {}", top_p);
  if (top_k < -1) fail(ErrorCode::kInvalid, "top_k: must be -1, 0 (both: all tokens) or positive, was {}", top_k);
  check_range("min_p", min_p, 0.0, 1.0);
  if (!(repetition_penalty > 0.0) || !std::isfinite(repetition_penalty)) {
    fail(ErrorCode::kInvalid, "repetition_penalty: must be greater than 0, was {}", repetition_penalty);
  }
  check_range("presence_penalty", presence_penalty, -2.0, 2.0);
  check_range("frequency_penalty", frequency_penalty, -2.0, 2.0);
  if (max_tokens && *max_tokens < 0) fail(ErrorCode::kInvalid, "max_tokens: must be at least 0, was {}", *max_tokens);
  if (min_tokens < 0) fail(ErrorCode::kInvalid, "min_tokens: must be at least 0, was {}", min_tokens);
  if (max_tokens && min_tokens > *max_tokens) {
    fail(ErrorCode::kInvalid, "min_tokens: must not exceed max_tokens ({}), was {}", *max_tokens, min_tokens);
  }
  check_logprobs("logprobs", logprobs, max_logprobs);
  check_logprobs("prompt_logprobs", prompt_logprobs, max_logprobs);
  for (int32_t id : stop_token_ids) check_token("stop_token_ids", id, vocab_size);
  for (int32_t id : allowed_token_ids) check_token("allowed_token_ids", id, vocab_size);
  for (const auto& [id, bias] : logit_bias) {
    check_token("logit_bias", id, vocab_size);
    if (std::isnan(bias)) fail(ErrorCode::kInvalid, "logit_bias: the bias of token {} is not a number", id);
  }
}

}  // namespace octet
