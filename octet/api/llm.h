// Llm: text in, text out. Tokenizer + chat template + engine + detokenizer; what the server, the tools and Python use.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "octet/api/output.h"
#include "octet/api/pooling.h"
#include "octet/engine/engine.h"
#include "octet/text/chat_template.h"
#include "octet/text/tokenizer.h"

namespace octet {

struct LlmOptions {
  std::string model;  // a folder, or a name in the Hugging Face cache
  std::string revision;
  std::string tokenizer;                                                       // folder or name; empty: the model's
  enum class Tokenizing : uint8_t { kOn, kOff } tokenizing = Tokenizing::kOn;  // kOff: token ids in, token ids out
  std::optional<std::string> chat_template;                                    // Jinja source instead of the model's
  std::string pooler_config;  // JSON, see PoolingChoice::of_config; empty: as the model's files say
  EngineOptions engine;       // engine.model_folder is set by Llm
};

// A prompt as text or as token ids.
struct Prompt {
  std::optional<std::string> text;
  std::vector<int32_t> token_ids;  // used when `text` is absent, or already made from it by chat_prompt()
  bool tokenized = false;          // token_ids are valid
  static Prompt of_text(std::string value);
  static Prompt of_token_ids(std::vector<int32_t> ids);
};

struct ChatOptions {
  Json tools;  // null or array
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // the model goes on with the last message; add_generation_prompt is then false
  Json template_kwargs = Json::object();
  // kText: special tokens spelled in messages stay text (the default). kParsed: as Hugging Face does.
  enum class UserSpecialTokens : uint8_t { kText, kParsed } user_special_tokens = UserSpecialTokens::kText;
};

// How the engine treats a request among others.
struct SubmitOptions {
  int32_t priority = 0;
  std::string cache_salt;              // requests with other salts share no cached prefix with it
  std::optional<PoolingType> pooling;  // fills RequestOutput::pooled; for requests with max_tokens 0 and n 1
};

// New text of one sequence.
struct OutputDelta {
  int32_t index = 0;
  std::string text;
  std::vector<int32_t> token_ids;
};

// Called on the output thread, in order. `output` is the whole state so far; `deltas` what is new. output.finished is
// true exactly once.
using OnOutput = std::function<void(const RequestOutput& output, std::span<const OutputDelta> deltas)>;

class Llm {
 public:
  explicit Llm(const LlmOptions& options);
  ~Llm();
  Llm(const Llm&) = delete;
  Llm& operator=(const Llm&) = delete;

  const Tokenizer* tokenizer() const;  // nullptr with Tokenizing::kOff
  const std::string& model_folder() const;
  Engine& engine();
  // The model's generation_config.json over SamplingParams' own defaults.
  SamplingParams default_sampling_params() const;
  // End-of-sequence ids: config.json, generation_config.json and the tokenizer's eos token together.
  const std::vector<int32_t>& eos_token_ids() const;

  // The tokenizer's special tokens by name ("eos_token"); empty with Tokenizing::kOff.
  const std::map<std::string, std::string>& special_tokens() const;
  // The chat template's Jinja text; nullptr when the model has none.
  const std::string* chat_template_source() const;

  // How the model's vectors of texts are made. Throws Error{kUnsupported} where its files ask for another way.
  PoolingChoice pooling() const;

  // What SamplingParams::grammar is compiled to, from a cache; submit() calls it. Throws Error{kInvalid} and
  // Error{kUnsupported} that say what is wrong with the spec. Takes at most 5 s.
  std::shared_ptr<const Grammar> compile_grammar(const GrammarSpec& spec) const;

  Prompt chat_prompt(const Json& messages, const ChatOptions& options = {}) const;
  std::string render_chat(const Json& messages, const ChatOptions& options = {}) const;

  // Starts a request and returns its id. Throws Error{kInvalid}; Error{kMemory} never happens after start-up. Waits
  // while the engine's queue is full. Thread-safe.
  std::string submit(const Prompt& prompt, const SamplingParams& params, OnOutput on_output,
                     const SubmitOptions& options = {});
  void abort(const std::string& request_id);
  // The same if it still waits for its first step.
  void abort_waiting(const std::string& request_id);

  // All prompts together, results in input order. `on_done(num_finished, output)` after each, for progress.
  std::vector<RequestOutput> generate(std::span<const Prompt> prompts, std::span<const SamplingParams> params,
                                      const std::function<void(const RequestOutput&)>& on_done = nullptr);
  RequestOutput generate(const Prompt& prompt, const SamplingParams& params);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace octet
