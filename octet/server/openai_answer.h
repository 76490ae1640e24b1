// How answers to completions and chat completions are worded, in OpenAI's words and vLLM's further ones. The same code
// words a whole answer and the chunks of a stream.
#pragma once

#include "octet/server/answer.h"
#include "octet/text/tokenizer.h"

namespace octet {

struct AnswerOptions {
  bool logprobs = false;
  int32_t num_logprobs = 0;  // alternatives of a position
  bool prompt_logprobs = false;
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  bool include_usage = false;            // at the end of a stream
  bool continuous_usage = false;         // and in each chunk
  const Tokenizer* tokenizer = nullptr;  // may be nullptr; outlives this
};

class OpenAiFormat : public AnswerFormat {
 public:
  explicit OpenAiFormat(const AnswerOptions& options) : options_(options) {}

  virtual std::string object() const = 0;
  virtual std::string chunk_object() const = 0;
  // The choice of a whole answer.
  virtual Json choice(ChoiceNews& news) const = 0;
  // What stands beside the choices; `first` is the first of them.
  virtual void complete_body(Json& body, const ChoiceNews& first) const = 0;
  // The choices of a stream's chunks, one chunk each, in order.
  virtual std::vector<Json> chunk_choices(ChoiceNews& news) const = 0;

  void begin(const AnswerHead& head) override;
  Json whole(std::vector<ChoiceNews> choices, const AnswerUsage& usage) override;
  void write_news(ChoiceNews& news, const AnswerUsage& usage, bool ends_all, std::string& stream) override;
  void write_end(const AnswerUsage& usage, std::string& stream) override;
  void write_error(const ApiError& error, std::string& stream) override;
  ErrorWording error_wording() const override { return ErrorWording::kOpenAi; }

 protected:
  const AnswerOptions& options() const { return options_; }

 private:
  Json envelope(const std::string& object) const;

  const AnswerOptions options_;
  AnswerHead head_;
  std::string chunk_head_;  // the part of a chunk before its choices
};

std::unique_ptr<OpenAiFormat> completion_format(const AnswerOptions& options);
std::unique_ptr<OpenAiFormat> chat_format(const AnswerOptions& options);

// One entry a token, as chat completions and responses have them. `options` says how many alternatives.
Json chat_logprobs(const ChoiceNews& news, const AnswerOptions& options);
// "stop", "length", ..., or null while it goes on. A choice that called tools and stopped by itself says "tool_calls".
Json finish_reason_json(const ChoiceNews& news);
Json stop_reason_json(const StopReason& reason);

}  // namespace octet
