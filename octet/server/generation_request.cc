#include "octet/server/generation_request.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "octet/base/log.h"

namespace octet {
namespace {

constexpr double kAnyNumber = std::numeric_limits<double>::max();
constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxIdBytes = 128;
constexpr double kLeastTemperature = 0.01;  // smaller ones overflow; vLLM raises them too
constexpr float kMaxBias = 100.0f;

// Fields of OpenAI, vLLM, SGLang and llama.cpp that would change the answer.
constexpr const char* kUnsupported[] = {
    "suffix",
    "prompt_embeds",
    "audio",
    "functions",
    "function_call",
    "web_search_options",
    "use_beam_search",
    "bad_words",
    "logprob_token_ids",
    "repetition_detection",
    "thinking_token_budget",
    "kv_transfer_params",
    "mirostat",
    "dynatemp_range",
    "xtc_probability",
    "dry_multiplier",
    "typical_p",
    "logits_processors",
    "lora_request",
};

bool means_nothing(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0.0;
  return value.empty();
}

void read_stops(Fields& fields, const RequestLimits& limits, SamplingParams& sampling) {
  const Json* stop = fields.raw("stop");
  if (!stop) return;
  const Json list = stop->is_array() ? *stop : Json::array({*stop});
  if (static_cast<int64_t>(list.size()) > limits.max_stops) {
    fail_field("stop", "at most {} stop strings, was {}", limits.max_stops, list.size());
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = stop->is_array() ? fmt::format("stop[{}]", i) : "stop";
    if (!list[i].is_string()) fail_field(path, "must be a string, was {}", described(list[i]));
    auto text = list[i].get<std::string>();
    if (text.empty()) fail_field(path, "must not be empty");
    if (static_cast<int64_t>(text.size()) > limits.max_stop_bytes) {
      fail_field(path, "at most {} bytes, was {}", limits.max_stop_bytes, text.size());
    }
    sampling.stop.push_back(std::move(text));
  }
}

void read_bias(Fields& fields, const ModelFacts& facts, SamplingParams& sampling) {
  const Json* bias = fields.raw("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) fail_field("logit_bias", "must be an object of token ids, was {}", described(*bias));
  for (const auto& [key, value] : bias->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const std::string path = "logit_bias." + shortened(key, 40);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= facts.vocab_size) {
      fail_field(path, "the key must be a token id from 0 to {}", facts.vocab_size - 1);
    }
    if (!value.is_number()) fail_field(path, "must be a number, was {}", described(value));
    sampling.logit_bias[static_cast<int32_t>(id)] = std::clamp(value.get<float>(), -kMaxBias, kMaxBias);
  }
}

void read_distribution(Fields& fields, SamplingParams& sampling) {
  const auto take = [](const auto& given, auto& value) {
    if (given) value = static_cast<std::remove_reference_t<decltype(value)>>(*given);
  };
  take(fields.number("temperature", 0.0, 2.0), sampling.temperature);
  if (sampling.temperature > 0.0 && sampling.temperature < kLeastTemperature) sampling.temperature = kLeastTemperature;
  take(fields.number("top_p", 0.0, 1.0), sampling.top_p);
  if (sampling.top_p <= 0.0) fail_field("top_p", "must be above 0 and at most 1, was {}", sampling.top_p);
  take(fields.integer("top_k", -1, kMaxInt32), sampling.top_k);
  take(fields.number("min_p", 0.0, 1.0), sampling.min_p);
  take(fields.number("repetition_penalty", 0.0, kAnyNumber), sampling.repetition_penalty);
  if (sampling.repetition_penalty <= 0.0) fail_field("repetition_penalty", "must be above 0");
  take(fields.number("presence_penalty", -2.0, 2.0), sampling.presence_penalty);
  take(fields.number("frequency_penalty", -2.0, 2.0), sampling.frequency_penalty);
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX)) sampling.seed = *seed;
}

void read_end(Fields& fields, const ModelFacts& facts, SamplingParams& sampling) {
  read_stops(fields, facts.limits, sampling);
  sampling.stop_token_ids = fields.token_ids("stop_token_ids", facts.vocab_size);
  sampling.include_stop_str_in_output = fields.boolean("include_stop_str_in_output").value_or(false);
  sampling.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  sampling.min_tokens = static_cast<int32_t>(fields.integer("min_tokens", 0, kMaxInt32).value_or(0));
  sampling.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  fields.boolean("spaces_between_special_tokens");  // of slow tokenizers only
  if (const Json* allowed = fields.raw("allowed_token_ids"); allowed && allowed->empty()) {
    fail_field("allowed_token_ids", "must not be empty");
  }
  sampling.allowed_token_ids = fields.token_ids("allowed_token_ids", facts.vocab_size);
}

void read_stream(Fields& fields, GenerationRequest& request) {
  request.stream = fields.boolean("stream").value_or(false);
  request.stream_interval = fields.integer("stream_interval", 1, kMaxInt32).value_or(1);
  const Json* options = fields.raw("stream_options");
  if (!options) return;
  if (!request.stream) fail_field("stream_options", "only with stream=true");
  Fields stream(*options, "stream_options");
  request.include_usage = stream.boolean("include_usage").value_or(false);
  request.continuous_usage = stream.boolean("continuous_usage_stats").value_or(false);
}

bool is_id(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c < 0x7F; });
}

}  // namespace

void read_prompt_handling(Fields& fields, const ModelFacts& facts, GenerationRequest& request) {
  request.truncate_prompt_tokens = fields.integer("truncate_prompt_tokens", -1, facts.max_model_len);
  if (request.truncate_prompt_tokens == 0) fail_field("truncate_prompt_tokens", "must be -1 or at least 1");
  if (const auto side = fields.string("truncation_side"); side && *side != "left") {
    fail_unsupported("truncation_side", "only \"left\" is supported");
  }
  const int64_t priority = fields.integer("priority", INT32_MIN, INT32_MAX).value_or(0);
  if (priority != 0 && !facts.has_priorities) {
    fail_field("priority", "must be 0: the server runs with --scheduling-policy fcfs, was {}", priority);
  }
  request.priority = static_cast<int32_t>(priority);
  if (const auto salt = fields.string("cache_salt", 1024)) {
    if (salt->empty()) fail_field("cache_salt", "must not be empty");
    request.cache_salt = *salt;
  }
  request.request_id = fields.string("request_id", kMaxIdBytes).value_or("");
  if (!is_id(request.request_id)) fail_field("request_id", "must be printable ASCII without spaces");
}

void refuse_unsupported(Fields& fields, int64_t n) {
  for (const char* name : kUnsupported) {
    const Json* value = fields.raw(name);
    if (value && !means_nothing(*value)) fail_unsupported(name, "octet does not support it");
  }
  if (const auto best_of = fields.integer("best_of", 1, kMaxInt32); best_of && *best_of != n) {
    fail_unsupported("best_of", "only the value of n ({}) is supported, was {}", n, *best_of);
  }
}

std::string read_model(Fields& fields, const ModelFacts& facts) {
  const auto model = fields.string("model");
  if (!model || model->empty()) return facts.names.front();
  if (std::find(facts.names.begin(), facts.names.end(), *model) == facts.names.end()) {
    throw ApiError(404, "model_not_found", fmt::format("The model `{}` does not exist.", shortened(*model)), "model");
  }
  return *model;
}

GenerationRequest read_generation(Fields& fields, const ModelFacts& facts) {
  GenerationRequest request;
  request.model = read_model(fields, facts);
  request.sampling = facts.defaults;
  SamplingParams& sampling = request.sampling;
  sampling.n = static_cast<int32_t>(fields.integer("n", 1, facts.limits.max_n).value_or(1));
  refuse_unsupported(fields, sampling.n);
  read_distribution(fields, sampling);
  if (sampling.greedy() && sampling.n > 1) {
    fail_field("n", "must be 1 with greedy sampling (temperature 0), was {}", sampling.n);
  }
  read_end(fields, facts, sampling);
  read_bias(fields, facts, sampling);
  if (auto grammar = read_grammar(fields)) {
    sampling.grammar = std::move(grammar->spec);
    request.grammar_field = std::move(grammar->field);
  }
  if (const auto count = fields.integer("prompt_logprobs", -1, facts.limits.max_logprobs)) {
    sampling.prompt_logprobs = static_cast<int32_t>(*count);
  }
  read_stream(fields, request);
  if (request.stream && sampling.prompt_logprobs) fail_field("prompt_logprobs", "not with stream=true");
  request.echo = fields.boolean("echo").value_or(false);
  request.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  request.return_tokens_as_token_ids = fields.boolean("return_tokens_as_token_ids").value_or(false);
  read_prompt_handling(fields, facts, request);
  for (const char* name : {"user", "metadata", "store", "service_tier", "session_id", "vllm_xargs"}) fields.raw(name);
  return request;
}

void take_max_tokens(std::optional<int64_t> given, GenerationRequest& generation) {
  SamplingParams& sampling = generation.sampling;
  if (given) sampling.max_tokens = static_cast<int32_t>(*given);
  generation.max_tokens_given = given.has_value();
  if (sampling.max_tokens && sampling.min_tokens > *sampling.max_tokens) {
    fail_field("min_tokens", "must not exceed max_tokens ({})", *sampling.max_tokens);
  }
}

void note_unknown(const Fields& fields) {
  for (const std::string& name : fields.unknown()) {
    log_debug("unknown field \"{}\" is ignored", shortened(fields.path_of(name), 80));
  }
}

}  // namespace octet
