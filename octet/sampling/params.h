// SamplingParams: how a request's tokens are chosen, with vLLM's names and defaults.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/sampling/grammar.h"

namespace octet {

struct SamplingParams {
  int32_t n = 1;
  double temperature = 1.0;  // < 1e-5: greedy
  double top_p = 1.0;
  int32_t top_k = 0;  // 0 and -1: all
  double min_p = 0.0;
  double repetition_penalty = 1.0;  // over prompt and output (HF)
  double presence_penalty = 0.0;    // output only
  double frequency_penalty = 0.0;
  std::optional<int64_t> seed;
  std::vector<std::string> stop;  // texts; matched above the engine
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  std::optional<int32_t> max_tokens = 16;  // nothing: to the end of the context
  int32_t min_tokens = 0;
  std::optional<int32_t> logprobs;  // number of alternatives; 0 = the sampled token's only; -1 = whole vocabulary
  std::optional<int32_t> prompt_logprobs;
  std::map<int32_t, float> logit_bias;  // clamped to +-100
  std::vector<int32_t> allowed_token_ids;
  std::optional<GrammarSpec> grammar;  // that the answer must belong to; compiled above the engine
  bool skip_special_tokens = true;
  bool detokenize = true;

  bool greedy() const { return temperature < 1e-5; }
  // Throws Error{kInvalid} naming the field, the range and what was found.
  void validate(int32_t vocab_size, int32_t max_logprobs = 20) const;
};

// One alternative of a position.
struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0.0f;
  int32_t rank = 0;  // 1 = most likely
};
// The chosen (or given) token first, then the most likely ones.
using PositionLogprobs = std::vector<TokenLogprob>;

}  // namespace octet
