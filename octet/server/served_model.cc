#include "octet/server/served_model.h"

#include <algorithm>
#include <ctime>

#include "octet/base/build_facts.h"

namespace octet {
namespace {

// FNV-1a: names a configuration, protects nothing.
uint32_t short_hash(std::string_view text) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return static_cast<uint32_t>(hash ^ (hash >> 32));
}

[[noreturn]] void fail_context(const std::string& path, int64_t context, int64_t num_prompt, int64_t num_output) {
  ApiError error(
      400, "context_length_exceeded",
      fmt::format("This model's maximum context length is {} tokens. However, you requested {} tokens ({} in "
                  "the prompt, {} in the completion). Please reduce the length of the prompt or the completion.",
                  context, num_prompt + num_output, num_prompt, num_output),
      path);
  error.extra = {{"n_prompt_tokens", num_prompt}, {"n_ctx", context}};
  throw error;
}

// A probe of the template, as llama.cpp does it: does the text of a plain string come out, or only that of a part?
bool template_wants_parts(const Llm& llm) {
  if (!llm.chat_template_source()) return false;
  constexpr const char* kProbe = "probe text";
  const auto shows = [&](const Json& content) {
    try {
      return llm.render_chat(Json::array({Json{{"role", "user"}, {"content", content}}})).find(kProbe) !=
             std::string::npos;
    } catch (const Error&) {
      return false;
    }
  };
  return !shows(kProbe) && shows(Json::array({Json{{"type", "text"}, {"text", kProbe}}}));
}

Json messages_in_parts(Json messages) {
  for (Json& message : messages) {
    Json& content = message["content"];
    if (content.is_string()) content = Json::array({Json{{"type", "text"}, {"text", content}}});
  }
  return messages;
}

// The keys are those that vLLM reads of config.json.
EmbeddingFacts embedding_facts(const ModelConfig& config) {
  EmbeddingFacts facts{.size = config.hidden_size};
  if (const auto list = config.json.find("matryoshka_dimensions"); list != config.json.end() && list->is_array()) {
    for (const Json& item : *list) {
      if (item.is_number_integer()) facts.matryoshka_dimensions.push_back(item.get<int64_t>());
    }
  }
  const auto flag = config.json.find("is_matryoshka");
  facts.is_matryoshka = !facts.matryoshka_dimensions.empty() || (flag != config.json.end() && *flag == true);
  return facts;
}

}  // namespace

ServedModel::ServedModel(const LlmOptions& options, std::vector<std::string> names, const RequestLimits& limits)
    : llm_(std::make_unique<Llm>(options)), root_(options.model), created_(std::time(nullptr)) {
  const EngineReport& report = llm_->engine().report();
  facts_.names = std::move(names);
  if (facts_.names.empty()) facts_.names.push_back(options.model);
  facts_.vocab_size = llm_->engine().model_config().vocab_size;
  facts_.max_model_len = std::min(report.max_model_len, report.kv_cache_tokens);
  facts_.defaults = llm_->default_sampling_params();
  facts_.has_priorities = options.engine.scheduling_policy == EngineOptions::SchedulingPolicy::kPriority;
  if (const std::string* source = llm_->chat_template_source()) facts_.tool_style = tool_style_of(*source);
  facts_.limits = limits;
  facts_.embedding = embedding_facts(llm_->engine().model_config());
  fingerprint_ =
      fmt::format("octet-{}-{:08x}", build::kVersion,
                  short_hash(fmt::format("{}|{}|{}|{}|{}|{}|{}", build::kCommit, llm_->model_folder(),
                                         report.quantization, report.dtype, report.kv_cache_dtype,
                                         options.engine.tensor_parallel_size, options.engine.deterministic)));
  if (const Tokenizer* words = llm_->tokenizer()) {
    for (int32_t id = 0; id < words->vocab_size(); ++id) {
      longest_token_bytes_ = std::max(longest_token_bytes_, words->id_to_token(id).size());
    }
  }
  wants_parts_ = template_wants_parts(*llm_);
}

const Tokenizer& ServedModel::tokenizer() const {
  if (!llm_->tokenizer()) throw ApiError(400, "not_supported_error", "This server has no tokenizer; send token ids.");
  return *llm_->tokenizer();
}

void ServedModel::check_grammar(const GenerationRequest& request) const {
  if (!request.sampling.grammar) return;
  try {
    llm_->compile_grammar(*request.sampling.grammar);
  } catch (const Error& error) {
    const bool unsupported = error.code() == ErrorCode::kUnsupported;
    if (!unsupported && error.code() != ErrorCode::kInvalid) throw;
    throw ApiError(400, unsupported ? "not_supported_error" : "invalid_schema",
                   request.grammar_field + ": " + error.what(), request.grammar_field);
  }
}

Prompt ServedModel::text_prompt(const std::string& text, AddSpecialTokens add, const std::string& path) const {
  // Too long whatever its tokens are: not worth tokenising.
  const auto least_tokens = static_cast<int64_t>(text.size() / longest_token_bytes_);
  if (least_tokens > facts_.max_model_len) {
    ApiError error(
        400, "context_length_exceeded",
        fmt::format("This model's maximum context length is {} tokens. However, you requested a prompt of at "
                    "least {} tokens. Please reduce the length of the prompt.",
                    facts_.max_model_len, least_tokens),
        path);
    error.extra = {{"n_prompt_tokens", least_tokens}, {"n_ctx", facts_.max_model_len}};
    throw error;
  }
  Prompt prompt = Prompt::of_token_ids(tokenizer().encode(text, add));
  prompt.text = text;
  if (prompt.token_ids.empty()) fail_field(path, "has no tokens");
  return prompt;
}

void ServedModel::fit(Prompt& prompt, const GenerationRequest& request, const std::string& path) const {
  const int64_t context = facts_.max_model_len;
  const std::optional<int32_t>& max_tokens = request.sampling.max_tokens;
  const int64_t num_output = request.max_tokens_given ? *max_tokens : 1;  // an implied length is what is left
  if (request.truncate_prompt_tokens) {
    const int64_t wanted = *request.truncate_prompt_tokens;
    const int64_t kept = std::max<int64_t>(1, wanted < 0 ? context - num_output : wanted);
    const auto size = static_cast<int64_t>(prompt.token_ids.size());
    if (size > kept) {
      prompt.token_ids.erase(prompt.token_ids.begin(), prompt.token_ids.end() - kept);
      if (prompt.text) prompt.text = tokenizer().decode(prompt.token_ids, SpecialTokens::kKeep);
    }
  }
  const auto length = static_cast<int64_t>(prompt.token_ids.size());
  if (length + num_output > context) fail_context(path, context, length, request.max_tokens_given ? num_output : 0);
}

std::vector<Prompt> ServedModel::prompts(const CompletionRequest& request) const {
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const std::string path =
        request.prompts.size() > 1 ? fmt::format("{}[{}]", request.prompts_field, i) : request.prompts_field;
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.prompts[i])) {
      prompts.push_back(Prompt::of_token_ids(*ids));
      if (request.generation.echo && llm_->tokenizer()) {
        prompts.back().text = tokenizer().decode(*ids, SpecialTokens::kKeep);
      }
    } else {
      const auto add = request.generation.add_special_tokens ? AddSpecialTokens::kYes : AddSpecialTokens::kNo;
      prompts.push_back(text_prompt(std::get<std::string>(request.prompts[i]), add, path));
    }
    fit(prompts.back(), request.generation, request.prompts_field);
  }
  return prompts;
}

Prompt ServedModel::chat_prompt(const Json& messages, const ChatOptions& options, AddSpecialTokens add) const {
  const Json plain = plain_messages(messages);
  size_t bytes = 0;
  for (const Json& message : plain) bytes += message["content"].get_ref<const std::string&>().size();
  const auto least_tokens = static_cast<int64_t>(bytes / longest_token_bytes_);
  if (least_tokens > facts_.max_model_len) fail_context("prompt", facts_.max_model_len, least_tokens, 0);
  Prompt prompt = llm_->chat_prompt(wants_parts_ ? messages_in_parts(plain) : plain, options);
  if (add == AddSpecialTokens::kYes) prompt.token_ids = tokenizer().encode(*prompt.text, add);
  if (prompt.token_ids.empty()) fail_field("messages", "the chat template makes no prompt of them");
  return prompt;
}

Prompt ServedModel::prompt(const ChatRequest& request) const {
  const auto add = request.generation.add_special_tokens ? AddSpecialTokens::kYes : AddSpecialTokens::kNo;
  Prompt prompt = chat_prompt(request.messages, request.options, add);
  fit(prompt, request.generation, "prompt");
  return prompt;
}

}  // namespace octet
