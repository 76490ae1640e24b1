#include "octet/server/responses_request.h"

#include <array>
#include <limits>
#include <utility>

#include "octet/server/responses_input.h"

namespace octet {
namespace {

constexpr size_t kMaxMetadata = 16;

// Fields of completions that mean the same here.
constexpr std::array<const char*, 17> kSame = {"stream",
                                               "temperature",
                                               "top_p",
                                               "top_k",
                                               "min_p",
                                               "seed",
                                               "repetition_penalty",
                                               "presence_penalty",
                                               "frequency_penalty",
                                               "stop",
                                               "ignore_eos",
                                               "min_tokens",
                                               "priority",
                                               "cache_salt",
                                               "request_id",
                                               "chat_template_kwargs",
                                               "parallel_tool_calls"};
// Fields that change nothing here.
constexpr std::array<const char*, 9> kNothing = {"user",           "safety_identifier",      "prompt_cache_key",
                                                 "service_tier",   "prompt_cache_retention", "store",
                                                 "max_tool_calls", "stream_options",         "client_metadata"};

// Where the chat request's names stand in this dialect. Longer names first.
constexpr std::pair<std::string_view, std::string_view> kNames[] = {
    {"response_format.json_schema", "text.format"},    {"response_format", "text.format"},       {"].function.", "]."},
    {"tool_choice.function.name", "tool_choice.name"}, {"reasoning_effort", "reasoning.effort"},
};

std::string renamed(std::string text) {
  for (const auto& [theirs, ours] : kNames) {
    for (size_t at = text.find(theirs); at != text.npos; at = text.find(theirs, at + ours.size())) {
      text.replace(at, theirs.size(), ours);
    }
  }
  return text;
}

void refuse_state(Fields& fields) {
  for (const char* name : {"previous_response_id", "conversation", "prompt"}) {
    if (fields.raw(name)) fail_unsupported(name, "octet stores nothing between requests: send all items as input");
  }
  if (fields.boolean("background").value_or(false)) {
    fail_unsupported("background", "octet stores no responses: only false");
  }
}

void add_tool_choice(const Json& given, Json& chat) {
  if (!given.is_object()) {
    chat["tool_choice"] = given;
    return;
  }
  Fields choice(given, "tool_choice");
  const std::string type = choice.string("type").value_or("");
  if (type != "function") {
    fail_unsupported("tool_choice.type", "only \"function\", was \"{}\"", shortened(type, 40));
  }
  const auto name = choice.string("name");
  if (!name) fail_field("tool_choice.name", "is required");
  chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", *name}}}};
}

void add_text(const Json& given, Json& chat) {
  Fields text(given, "text");
  text.string("verbosity", 64);  // no template knows it
  const Json* format = text.raw("format");
  if (!format) return;
  Fields fields(*format, "text.format");
  const std::string type = fields.string("type").value_or("");
  if (type == "text") return;
  if (type == "json_object") {
    chat["response_format"] = {{"type", type}};
    return;
  }
  if (type != "json_schema") {
    fail_field("text.format.type", "must be text, json_object or json_schema, was \"{}\"", shortened(type, 40));
  }
  const Json* schema = fields.raw("schema");
  if (!schema)
    throw ApiError(400, "missing_required_parameter", "text.format.schema: is required", "text.format.schema");
  chat["response_format"] = {{"type", type}, {"json_schema", {{"schema", *schema}}}};
}

// Templates that can be told (Qwen3's) know "none" as enable_thinking.
void add_reasoning(const Json& given, Json& chat) {
  Fields reasoning(given, "reasoning");
  for (const char* name : {"summary", "generate_summary"}) reasoning.raw(name);  // reasoning comes whole
  const auto effort = reasoning.string("effort", 64);
  if (!effort) return;
  chat["reasoning_effort"] = *effort;
  if (*effort == "none" && !chat.contains("chat_template_kwargs")) {
    chat["chat_template_kwargs"] = {{"enable_thinking", false}};
  }
}

void add_included(Fields& fields, Json& chat) {
  const auto count = fields.integer("top_logprobs", 0, std::numeric_limits<int32_t>::max());
  const Json* include = fields.raw("include");
  if (include && !include->is_array()) fail_field("include", "must be a list, was {}", described(*include));
  for (size_t i = 0; include && i < include->size(); ++i) {
    const Json& name = (*include)[i];
    if (name == "message.output_text.logprobs") {
      chat["logprobs"] = true;
    } else if (name != "reasoning.encrypted_content") {  // reasoning comes in the clear
      fail_unsupported(fmt::format("include[{}]", i), "octet does not give {}", described(name));
    }
  }
  if (count && *count > 0) chat["logprobs"] = true;
  if (count && chat.contains("logprobs")) chat["top_logprobs"] = *count;
}

void check_metadata(const Json& metadata) {
  if (!metadata.is_object() || metadata.size() > kMaxMetadata) {
    fail_field("metadata", "must be an object of at most {} strings", kMaxMetadata);
  }
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) fail_field("metadata." + shortened(key, 40), "must be a string, was {}", described(value));
  }
}

// The body of POST /v1/chat/completions that means the same.
Json chat_body(Fields& fields, const ModelFacts& facts) {
  Json chat = {{"model", read_model(fields, facts)}};
  refuse_state(fields);
  chat["messages"] = chat_messages_of_input(fields, facts.limits);
  if (const auto most = fields.integer("max_output_tokens", 1, std::numeric_limits<int32_t>::max())) {
    chat["max_completion_tokens"] = *most;
  }
  for (const char* name : kSame) {
    if (const Json* value = fields.raw(name)) chat[name] = *value;
  }
  if (const Json* tools = fields.raw("tools")) chat["tools"] = chat_tools_of_responses(*tools);
  if (const Json* choice = fields.raw("tool_choice")) add_tool_choice(*choice, chat);
  if (const Json* text = fields.raw("text")) add_text(*text, chat);
  if (const Json* reasoning = fields.raw("reasoning")) add_reasoning(*reasoning, chat);
  add_included(fields, chat);
  const std::string truncation = fields.string("truncation", 64).value_or("disabled");
  if (truncation != "auto" && truncation != "disabled") {
    fail_field("truncation", "must be auto or disabled, was \"{}\"", truncation);
  }
  if (truncation == "auto") chat["truncate_prompt_tokens"] = -1;
  if (const Json* metadata = fields.raw("metadata")) check_metadata(*metadata);
  for (const char* name : kNothing) fields.raw(name);
  note_unknown(fields);
  return chat;
}

Json echo_of(Fields& fields, const ChatRequest& chat) {
  const auto given = [&](const char* name, Json otherwise) {
    const Json* value = fields.raw(name);
    return value ? *value : std::move(otherwise);
  };
  Json text = given("text", Json::object());
  if (!text.contains("format") || text["format"].is_null()) text["format"] = {{"type", "text"}};
  Json reasoning = {{"effort", nullptr}, {"summary", nullptr}};
  if (const Json* value = fields.raw("reasoning")) reasoning.update(*value);
  return {{"instructions", given("instructions", nullptr)},
          {"max_output_tokens", given("max_output_tokens", nullptr)},
          {"max_tool_calls", given("max_tool_calls", nullptr)},
          {"metadata", given("metadata", Json::object())},
          {"parallel_tool_calls", given("parallel_tool_calls", true)},
          {"previous_response_id", nullptr},
          {"reasoning", std::move(reasoning)},
          {"service_tier", "default"},
          {"store", false},
          {"temperature", chat.generation.sampling.temperature},
          {"text", std::move(text)},
          {"tool_choice", given("tool_choice", "auto")},
          {"tools", given("tools", Json::array())},
          {"top_logprobs", given("top_logprobs", 0)},
          {"top_p", chat.generation.sampling.top_p},
          {"truncation", given("truncation", "disabled")},
          {"user", given("user", nullptr)},
          {"background", false}};
}

}  // namespace

ResponsesRequest read_responses_request(const Json& body, const ModelFacts& facts) {
  Fields fields(body, "");
  const Json chat = chat_body(fields, facts);
  ResponsesRequest request;
  try {
    request.chat = read_chat(chat, facts);
  } catch (const ApiError& error) {
    std::optional<std::string> param;
    if (error.param) param = renamed(*error.param);
    throw ApiError(error.status, error.code, renamed(error.what()), param);
  }
  std::string& field = request.chat.generation.grammar_field;
  field = renamed(std::move(field));
  request.echo = echo_of(fields, request.chat);
  return request;
}

}  // namespace octet
