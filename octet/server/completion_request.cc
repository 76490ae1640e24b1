#include "octet/server/completion_request.h"

#include <algorithm>

namespace octet {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

std::vector<int32_t> read_ids(const Json& list, const std::string& path, const ModelFacts& facts) {
  if (list.empty()) fail_field(path, "must not be empty");
  if (static_cast<int64_t>(list.size()) > facts.max_model_len) {
    ApiError error(
        400, "context_length_exceeded",
        fmt::format("This model's maximum context length is {} tokens. However, you requested a prompt of {} "
                    "tokens. Please reduce the length of the prompt.",
                    facts.max_model_len, list.size()),
        path);
    error.extra = {{"n_prompt_tokens", list.size()}, {"n_ctx", facts.max_model_len}};
    throw error;
  }
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    ids.push_back(static_cast<int32_t>(whole_number(list[i], fmt::format("{}[{}]", path, i), 0, facts.vocab_size - 1)));
  }
  return ids;
}

std::string read_text(const Json& text, const std::string& path) {
  if (!text.is_string()) fail_field(path, "must be a string, as the others, was {}", described(text));
  auto value = text.get<std::string>();
  if (value.empty()) fail_field(path, "must not be empty");
  return value;
}

void read_logprobs(Fields& fields, const ModelFacts& facts, GenerationRequest& generation) {
  const auto count = fields.integer("logprobs", 0, facts.limits.max_logprobs);
  if (!count) return;
  generation.sampling.logprobs = static_cast<int32_t>(*count);
  if (generation.echo) generation.sampling.prompt_logprobs = static_cast<int32_t>(*count);
}

}  // namespace

std::vector<PromptInput> read_prompts(Fields& fields, std::string_view key, const ModelFacts& facts) {
  const std::string path = fields.path_of(key);
  const Json* prompt = fields.raw(key);
  if (!prompt) throw ApiError(400, "missing_required_parameter", path + ": is required", path);
  if (prompt->is_string()) return {read_text(*prompt, path)};
  if (!prompt->is_array()) fail_field(path, "must be a string or a list, was {}", described(*prompt));
  if (prompt->empty()) fail_field(path, "must not be empty");
  if (prompt->front().is_number()) return {read_ids(*prompt, path, facts)};
  if (static_cast<int64_t>(prompt->size()) > facts.limits.max_prompts) {
    fail_field(path, "at most {} prompts, was {}", facts.limits.max_prompts, prompt->size());
  }
  std::vector<PromptInput> prompts;
  const bool of_ids = prompt->front().is_array();
  for (size_t i = 0; i < prompt->size(); ++i) {
    const Json& item = (*prompt)[i];
    const std::string place = fmt::format("{}[{}]", path, i);
    if (!of_ids) {
      prompts.emplace_back(read_text(item, place));
      continue;
    }
    if (!item.is_array()) fail_field(place, "must be a list of token ids, as the others, was {}", described(item));
    prompts.emplace_back(read_ids(item, place, facts));
  }
  return prompts;
}

CompletionRequest read_completion(const Json& body, const ModelFacts& facts) {
  Fields fields(body, "");
  CompletionRequest request;
  GenerationRequest& generation = request.generation;
  generation = read_generation(fields, facts);
  read_logprobs(fields, facts, generation);
  for (const char* name : {"tools", "tool_choice"}) {
    const Json* value = fields.raw(name);
    if (value && !value->empty()) fail_unsupported(name, "only in chat completions");
  }
  take_max_tokens(fields.integer("max_tokens", generation.echo ? 0 : 1, kMaxInt32), generation);
  generation.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  request.prompts = read_prompts(fields, "prompt", facts);
  const int64_t num_sequences = static_cast<int64_t>(request.prompts.size()) * generation.sampling.n;
  if (num_sequences > facts.limits.max_sequences) {
    fail_field("n", "prompts times n must be at most {}, was {}", facts.limits.max_sequences, num_sequences);
  }
  note_unknown(fields);
  return request;
}

}  // namespace octet
