// ServedModel: the loaded model as the routes see it: its names, its facts, and requests made into prompts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "octet/api/llm.h"
#include "octet/server/chat_request.h"
#include "octet/server/completion_request.h"

namespace octet {

class ServedModel {
 public:
  // Loads the model, which takes its time. `names`: empty, or what clients call it by.
  ServedModel(const LlmOptions& options, std::vector<std::string> names, const RequestLimits& limits);

  Llm& llm() const { return *llm_; }
  const ModelFacts& facts() const { return facts_; }
  // Of what decides the bits of an answer: octet's version, model, quantisation, parallelism.
  const std::string& fingerprint() const { return fingerprint_; }
  int64_t created() const { return created_; }
  const std::string& root() const { return root_; }  // the model as it was named to the server

  // Token ids, checked to leave room for what shall be generated: ApiError 400 context_length_exceeded else.
  std::vector<Prompt> prompts(const CompletionRequest& request) const;
  Prompt prompt(const ChatRequest& request) const;
  // Compiles the request's grammar, if it has one, so that what is wrong with it is known: ApiError for its field.
  void check_grammar(const GenerationRequest& request) const;
  Prompt text_prompt(const std::string& text, AddSpecialTokens add, const std::string& path) const;
  // Messages as the model's template understands them, and what it makes of them.
  Prompt chat_prompt(const Json& messages, const ChatOptions& options, AddSpecialTokens add) const;

 private:
  void fit(Prompt& prompt, const GenerationRequest& request, const std::string& path) const;
  const Tokenizer& tokenizer() const;

  std::unique_ptr<Llm> llm_;
  ModelFacts facts_;
  std::string root_, fingerprint_;
  int64_t created_ = 0;
  size_t longest_token_bytes_ = 1;
  bool wants_parts_ = false;  // the template reads contents as lists of parts only
};

}  // namespace octet
