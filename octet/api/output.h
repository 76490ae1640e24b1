// What generation returns, under vLLM's names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "octet/engine/request.h"
#include "octet/sampling/params.h"

namespace octet {

// Why a sequence stopped, when finish_reason is kStop: nothing (the model's own end of sequence), a stop token, a stop
// string.
using StopReason = std::variant<std::monostate, int32_t, std::string>;

struct CompletionOutput {
  int32_t index = 0;
  std::string text;
  std::vector<int32_t> token_ids;
  double cumulative_logprob = 0.0;
  std::vector<PositionLogprobs> logprobs;  // one per token id when asked for
  FinishReason finish_reason = FinishReason::kNone;
  StopReason stop_reason;
  std::string error;  // with kError
};

struct RequestOutput {
  std::string request_id;
  std::optional<std::string> prompt;
  std::vector<int32_t> prompt_token_ids;
  std::vector<PositionLogprobs> prompt_logprobs;
  std::vector<CompletionOutput> outputs;  // by index
  std::vector<float> pooled;              // with SubmitOptions::pooling, once finished; empty when it was ended before
  int32_t num_cached_tokens = 0;
  RequestTimes times;
  bool finished = false;
};

// "stop", "length", "abort", "error"; empty for kNone.
const char* finish_reason_name(FinishReason reason);

}  // namespace octet
