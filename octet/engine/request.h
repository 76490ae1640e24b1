// Request: what a client wants, immutable once submitted; and what comes back. Token ids in, token ids out: text is
// above.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "octet/sampling/params.h"

namespace octet {

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAbort, kError };

// New tokens of one of the n sequences of a request.
struct SequenceDelta {
  int32_t index = 0;
  std::vector<int32_t> token_ids;
  std::vector<PositionLogprobs> logprobs;  // one per token id when asked for
  double cumulative_logprob = 0.0;         // of all tokens so far; kept only when logprobs are asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;  // with kStop: the id that stopped it (its token is in token_ids)
  std::string error;                     // with kError
};

struct RequestTimes {  // microseconds on the steady clock
  int64_t arrival_us = 0;
  int64_t first_scheduled_us = 0;
  int64_t first_token_us = 0;
  int64_t last_token_us = 0;
};

// One event of a request's stream. `finished` is true exactly once, in the last event.
struct RequestEvent {
  std::vector<SequenceDelta> deltas;
  std::vector<PositionLogprobs> prompt_logprobs;  // once, before or with the first token; position 0 is empty
  int32_t num_cached_tokens = 0;
  RequestTimes times;
  bool finished = false;
};

struct Request {
  std::string id;
  std::vector<int32_t> prompt_token_ids;
  SamplingParams sampling;
  std::vector<int32_t> eos_token_ids;      // of the model; ignored with ignore_eos
  std::shared_ptr<const Grammar> grammar;  // sampling.grammar, compiled; nullptr: any text. eos then always ends
  int32_t priority = 0;                    // lower runs earlier under the priority policy
  std::string cache_salt;                  // mixed into the first block's hash: requests with other salts share nothing
  // Called on the engine's thread, in order; must be quick and must not throw.
  std::function<void(RequestEvent)> on_event;
  // Which rows of the prompt (row = position) the functions below receive. Of each row they are called once, in order,
  // on a rank's thread before the step ends; kAll takes no row from the prefix cache.
  enum class RowScope : uint8_t { kNone, kLast, kAll } row_scope = RowScope::kNone;
  std::function<void(int64_t position, std::span<const float> logits)> on_logits;
  std::function<void(int64_t position, std::span<const float> hidden)> on_hidden;  // after the final norm
};

}  // namespace octet
