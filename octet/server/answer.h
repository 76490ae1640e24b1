// What answers to completions and chat completions are made of: one choice's news, and how either API words it. The
// same code words a whole answer and the chunks of a stream.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "octet/api/output.h"
#include "octet/base/json.h"
#include "octet/server/output_splitter.h"
#include "octet/text/tokenizer.h"

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
  int64_t text_offset = 0;  // characters that have gone out before
};

struct AnswerOptions {
  bool logprobs = false;
  int32_t num_logprobs = 0;  // alternatives of a position
  bool prompt_logprobs = false;
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  const Tokenizer* tokenizer = nullptr;  // may be nullptr; outlives this
};

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual std::string id_prefix() const = 0;
  virtual std::string object() const = 0;
  virtual std::string chunk_object() const = 0;
  // The choice of a whole answer.
  virtual Json choice(ChoiceNews& news) const = 0;
  // What stands beside the choices; `first` is the first of them.
  virtual void complete_body(Json& body, const ChoiceNews& first) const = 0;
  // The choices of a stream's chunks, one chunk each, in order.
  virtual std::vector<Json> chunk_choices(ChoiceNews& news) const = 0;
};

std::unique_ptr<AnswerFormat> completion_format(const AnswerOptions& options);
std::unique_ptr<AnswerFormat> chat_format(const AnswerOptions& options);

// "stop", "length", ..., or null while it goes on. A choice that called tools and stopped by itself says "tool_calls".
Json finish_reason_json(const ChoiceNews& news);
// Of news.calls: those that begin one.
int64_t num_begun(const ChoiceNews& news);
Json stop_reason_json(const StopReason& reason);

}  // namespace octet
