// What answers are made of: one choice's news; and AnswerFormat, how one of the APIs words them, as a whole or as the
// events of a stream.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "octet/api/output.h"
#include "octet/base/json.h"
#include "octet/server/api_error.h"
#include "octet/server/output_splitter.h"

namespace octet {

// What is new of one choice since the last time; of a whole answer, everything.
struct ChoiceNews {
  int64_t index = 0;
  bool opens = true;                              // nothing of this choice has gone out
  std::string echo;                               // with `opens`: text before the answer's own
  std::vector<int32_t> prompt_token_ids;          // with `opens`, when asked for
  std::vector<int32_t> echoed_token_ids;          // with `opens` and echoed log-probabilities
  std::vector<PositionLogprobs> echoed_logprobs;  // of those; the first is empty
  std::vector<PositionLogprobs> prompt_logprobs;  // as vLLM's field of the name
  std::string reasoning;                          // of a chat, when the model's template knows it
  std::string text;
  std::vector<ToolCall> calls;
  std::vector<std::string> call_ids;  // of those that begin
  int64_t num_calls_before = 0;       // that have begun before
  bool call_was_asked_for = false;    // by its name: the end is then a "stop", as OpenAI has it
  std::vector<int32_t> token_ids;
  std::vector<PositionLogprobs> logprobs;  // of token_ids, when asked for
  FinishReason finish_reason = FinishReason::kNone;
  StopReason stop_reason;
  std::vector<float> pooled;  // of a text that is embedded
  int64_t text_offset = 0;    // characters that have gone out before
};

// Of news.calls: those that begin one.
int64_t num_begun(const ChoiceNews& news);

// What an answer says of itself.
struct AnswerHead {
  std::string id, model, fingerprint;
  int64_t created = 0;  // seconds since 1970
};

// What it has cost so far.
struct AnswerUsage {
  int64_t num_prompt_tokens = 0, num_cached_tokens = 0, num_output_tokens = 0;
  std::optional<int64_t> num_reasoning_tokens;  // where reasoning is told apart
  RequestTimes times;                           // of the prompt that ended last
};

// Words one answer. The calls of a stream: begin(), write_news() many times, write_end() or write_error(); of a whole
// answer: begin(), whole().
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual std::string id_prefix() const = 0;
  virtual void begin(const AnswerHead& head) = 0;
  virtual Json whole(std::vector<ChoiceNews> choices, const AnswerUsage& usage) = 0;
  // Append server-sent events to `stream`. `ends_all`: nothing follows but the end.
  virtual void write_news(ChoiceNews& news, const AnswerUsage& usage, bool ends_all, std::string& stream) = 0;
  virtual void write_end(const AnswerUsage& usage, std::string& stream) = 0;
  virtual void write_error(const ApiError& error, std::string& stream) = 0;
  virtual ErrorWording error_wording() const = 0;  // of an error before anything has gone out
};

}  // namespace octet
