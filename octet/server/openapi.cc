#include "octet/server/openapi.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace octet {
namespace {

struct Operation {
  const char* method;
  const char* path;
  const char* summary;
  const char* body;    // name of a schema; nullptr: none
  const char* answer;  // media type of 200; what is streamed is named in the summary
};

constexpr const char* kJson = "application/json";

constexpr Operation kOperations[] = {
    {"get", "/health", "200 while requests are answered and steps end", nullptr, kJson},
    {"get", "/ready", "As /health", nullptr, kJson},
    {"get", "/live", "As /health, but 200 while loading and draining", nullptr, kJson},
    {"get", "/ping", "As /health", nullptr, kJson},
    {"post", "/ping", "As /health", nullptr, kJson},
    {"get", "/version", "Version and commit of octet", nullptr, kJson},
    {"get", "/load", "How many requests are being answered", nullptr, kJson},
    {"get", "/metrics", "Prometheus' text format, under vLLM's names", nullptr, "text/plain"},
    {"get", "/openapi.json", "This document", nullptr, kJson},
    {"get", "/api/status", "What the page shows: model, engine, requests", nullptr, kJson},
    {"get", "/", "A page to chat and to watch the server", nullptr, "text/html"},
    {"get", "/page/{file}", "Its files", nullptr, "text/javascript"},
    {"get", "/health_generate", "200 when a token could be generated", nullptr, kJson},
    {"get", "/server_info", "What was decided at the start: model, engine, limits", nullptr, kJson},
    {"post", "/abort_requests", "Ends requests; with the admin key", "AbortRequests", kJson},
    {"post", "/reset_prefix_cache", "Forgets cached prefixes; with the admin key", nullptr, kJson},
    {"get", "/v1/models", "The names of the model", nullptr, kJson},
    {"get", "/v1/models/{name}", "One name of the model", nullptr, kJson},
    {"get", "/tokenizer_info", "Special tokens and the chat template", nullptr, kJson},
    {"post", "/v1/completions", "Text completion; text/event-stream with stream", "Completion", kJson},
    {"post", "/v1/chat/completions", "Chat completion; text/event-stream with stream", "Chat", kJson},
    {"post", "/v1/messages", "Anthropic's messages; text/event-stream with stream", "Messages", kJson},
    {"post", "/v1/messages/count_tokens", "Tokens of a messages request", "CountTokens", kJson},
    {"post", "/v1/responses", "OpenAI's responses, none stored; text/event-stream with stream", "Responses", kJson},
    {"post", "/v1/embeddings", "Vectors of texts", "Embedding", kJson},
    {"post", "/v1/completions/render", "The prompts of a completion and their ids", "Completion", kJson},
    {"post", "/v1/chat/completions/render", "The prompt of a chat and its ids", "Chat", kJson},
    {"post", "/tokenize", "Ids of a text or of messages", "Tokenize", kJson},
    {"post", "/detokenize", "Text of ids", "Detokenize", kJson},
};

// Fields that completions and chat completions share; a null is a field not given.
constexpr std::string_view kGeneration = R"({
  "model": {"type": ["string", "null"]},
  "max_tokens": {"type": ["integer", "null"], "minimum": 1},
  "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
  "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
  "top_k": {"type": ["integer", "null"], "minimum": -1},
  "min_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
  "repetition_penalty": {"type": ["number", "null"], "exclusiveMinimum": 0},
  "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
  "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
  "seed": {"type": ["integer", "null"]},
  "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
  "stop": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 16}]},
  "stop_token_ids": {"$ref": "#/components/schemas/TokenIds"},
  "include_stop_str_in_output": {"type": ["boolean", "null"]},
  "ignore_eos": {"type": ["boolean", "null"]},
  "min_tokens": {"type": ["integer", "null"], "minimum": 0},
  "logit_bias": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
  "allowed_token_ids": {"$ref": "#/components/schemas/TokenIds"},
  "skip_special_tokens": {"type": ["boolean", "null"]},
  "prompt_logprobs": {"type": ["integer", "null"], "minimum": -1},
  "echo": {"type": ["boolean", "null"]},
  "stream": {"type": ["boolean", "null"]},
  "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": ["boolean", "null"]},
    "continuous_usage_stats": {"type": ["boolean", "null"]}}},
  "stream_interval": {"type": ["integer", "null"], "minimum": 1},
  "truncate_prompt_tokens": {"type": ["integer", "null"], "minimum": -1},
  "add_special_tokens": {"type": ["boolean", "null"]},
  "priority": {"type": ["integer", "null"]},
  "cache_salt": {"type": ["string", "null"], "minLength": 1},
  "request_id": {"type": ["string", "null"], "maxLength": 128},
  "return_token_ids": {"type": ["boolean", "null"]},
  "return_tokens_as_token_ids": {"type": ["boolean", "null"]},
  "response_format": {"type": ["object", "null"], "required": ["type"],
    "properties": {"type": {"enum": ["text", "json_object", "json_schema", "structural_tag"]}}},
  "structured_outputs": {"type": ["object", "null"], "properties": {"json": {"type": ["object", "string", "null"]},
    "regex": {"type": ["string", "null"]}, "choice": {"type": ["array", "null"], "items": {"type": "string"}},
    "grammar": {"type": ["string", "null"]}, "json_object": {"type": ["boolean", "null"]}}},
  "guided_json": {"type": ["object", "string", "null"]},
  "guided_regex": {"type": ["string", "null"]},
  "guided_choice": {"type": ["array", "null"], "items": {"type": "string"}},
  "guided_grammar": {"type": ["string", "null"]}
})";

constexpr std::string_view kSchemas = R"({
  "TokenIds": {"type": ["array", "null"], "items": {"type": "integer", "minimum": 0}},
  "Content": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "minItems": 1, "items": {"type": "object",
    "required": ["type", "text"], "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}}]},
  "Tool": {"type": "object", "required": ["type", "function"], "properties": {"type": {"const": "function"},
    "function": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}}}}},
  "ChatMessages": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"], "properties": {
    "role": {"enum": ["system", "developer", "user", "assistant", "tool"]}, "content": {"$ref": "#/components/schemas/Content"}}}},
  "Completion": {"type": "object", "required": ["prompt"], "properties": {
    "prompt": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
      {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
      {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}, "minItems": 1}]},
    "logprobs": {"type": ["integer", "null"], "minimum": 0}}},
  "Chat": {"type": "object", "required": ["messages"], "properties": {
    "messages": {"$ref": "#/components/schemas/ChatMessages"},
    "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
    "logprobs": {"type": ["boolean", "null"]},
    "top_logprobs": {"type": ["integer", "null"], "minimum": 0},
    "tools": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/Tool"}},
    "tool_choice": {"type": ["string", "object", "null"]},
    "parallel_tool_calls": {"type": ["boolean", "null"]},
    "add_generation_prompt": {"type": ["boolean", "null"]},
    "continue_final_message": {"type": ["boolean", "null"]},
    "chat_template_kwargs": {"type": ["object", "null"]},
    "documents": {"type": ["array", "null"], "items": {"type": "object"}},
    "reasoning_effort": {"type": ["string", "null"]},
    "include_reasoning": {"type": ["boolean", "null"]}}},
  "CountTokens": {"type": "object", "required": ["messages"], "properties": {
    "model": {"type": ["string", "null"]},
    "messages": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role", "content"], "properties": {
      "role": {"enum": ["user", "assistant"]}, "content": {"$ref": "#/components/schemas/Content"}}}},
    "system": {"$ref": "#/components/schemas/Content"},
    "tools": {"type": ["array", "null"], "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
      "input_schema": {"type": "object"}}}},
    "tool_choice": {"type": ["object", "null"], "required": ["type"], "properties": {"type": {"enum": ["auto", "any", "tool", "none"]}}},
    "thinking": {"type": ["object", "null"]}}},
  "Tokenize": {"type": "object", "properties": {
    "model": {"type": ["string", "null"]},
    "prompt": {"type": ["string", "null"]},
    "messages": {"$ref": "#/components/schemas/ChatMessages"},
    "add_special_tokens": {"type": ["boolean", "null"]},
    "return_token_strs": {"type": ["boolean", "null"]}}},
  "Detokenize": {"type": "object", "required": ["tokens"], "properties": {
    "model": {"type": ["string", "null"]},
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}}}},
  "Responses": {"type": "object", "required": ["input"], "properties": {
    "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {
      "type": {"enum": ["message", "function_call", "function_call_output", "reasoning"]}}}}]},
    "instructions": {"type": ["string", "null"]},
    "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
    "tools": {"type": ["array", "null"], "items": {"type": "object", "required": ["type", "name"], "properties": {
      "type": {"const": "function"}, "name": {"type": "string"}, "parameters": {"type": ["object", "null"]}, "strict": {"type": ["boolean", "null"]}}}},
    "tool_choice": {"type": ["string", "object", "null"]},
    "parallel_tool_calls": {"type": ["boolean", "null"]},
    "text": {"type": ["object", "null"], "properties": {"format": {"type": ["object", "null"], "required": ["type"],
      "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}}}}},
    "reasoning": {"type": ["object", "null"], "properties": {"effort": {"type": ["string", "null"]}}},
    "include": {"type": ["array", "null"], "items": {"enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]}},
    "top_logprobs": {"type": ["integer", "null"], "minimum": 0},
    "truncation": {"enum": ["auto", "disabled", null]},
    "metadata": {"type": ["object", "null"], "additionalProperties": {"type": "string"}, "maxProperties": 16},
    "store": {"type": ["boolean", "null"]}}},
  "AbortRequests": {"type": "object", "properties": {"request_ids": {"type": ["array", "null"], "items": {"type": "string"}},
    "abort_all": {"type": ["boolean", "null"]}}},
  "Embedding": {"type": "object", "required": ["input"], "properties": {
    "model": {"type": ["string", "null"]},
    "encoding_format": {"enum": ["float", "base64", null]},
    "dimensions": {"type": ["integer", "null"], "minimum": 1},
    "normalize": {"type": ["boolean", "null"]},
    "truncate_prompt_tokens": {"type": ["integer", "null"], "minimum": -1},
    "add_special_tokens": {"type": ["boolean", "null"]},
    "user": {"type": ["string", "null"]}}},
  "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object", "required": ["message", "type"],
    "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]}}}}}
})";

Json schemas() {
  Json all = parse_json(kSchemas, "openapi.cc");
  const Json generation = parse_json(kGeneration, "openapi.cc");
  for (const char* name : {"Completion", "Chat"}) all[name]["properties"].update(generation);
  all["Embedding"]["properties"]["input"] = all["Completion"]["properties"]["prompt"];
  all["Completion"]["properties"]["max_tokens"]["minimum"] = 0;  // with echo
  Json& messages = all["Messages"] = all["CountTokens"];
  messages["required"].push_back("max_tokens");
  messages["properties"]["max_tokens"] = {{"type", "integer"}, {"minimum", 1}};
  messages["properties"]["stop_sequences"] = {{"type", {"array", "null"}}, {"items", {{"type", "string"}}}};
  for (const char* name : {"stream", "temperature", "top_p", "top_k"}) {
    messages["properties"][name] = generation[name];
    all["Responses"]["properties"][name] = generation[name];
  }
  all["Responses"]["properties"]["model"] = generation["model"];
  return all;
}

Json operation_json(const Operation& row) {
  const std::string_view path = row.path;
  const Json error = {{"description", "What was wrong"},
                      {"content", {{kJson, {{"schema", {{"$ref", "#/components/schemas/Error"}}}}}}}};
  Json content = {{row.answer, Json::object()}};
  if (path == "/v1/completions" || path == "/v1/chat/completions" || path == "/v1/messages" ||
      path == "/v1/responses") {
    content["text/event-stream"] = Json::object();
  }
  Json operation = {
      {"summary", row.summary},
      {"responses",
       {{"200", {{"description", "OK"}, {"content", std::move(content)}}}, {"4XX", error}, {"503", error}}}};
  if (row.body) {
    const std::string reference = std::string("#/components/schemas/") + row.body;
    operation["requestBody"] = {{"required", true}, {"content", {{kJson, {{"schema", {{"$ref", reference}}}}}}}};
  }
  if (const size_t brace = path.find('{'); brace != std::string_view::npos) {
    const std::string name(path.substr(brace + 1, path.size() - brace - 2));
    operation["parameters"] =
        Json::array({{{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  }
  constexpr std::string_view kOpen[] = {"/health", "/ready", "/live", "/ping", "/version", "/", "/page/{file}"};
  const bool is_open = std::ranges::find(kOpen, path) != std::end(kOpen);
  if (is_open) operation["security"] = Json::array();
  return operation;
}

}  // namespace

Json openapi_document(const std::string& version) {
  Json paths = Json::object();
  for (const Operation& row : kOperations) paths[row.path][row.method] = operation_json(row);
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "octet"}, {"version", version}, {"description", "OpenAI's API as vLLM speaks it."}}},
          {"paths", std::move(paths)},
          {"components",
           {{"schemas", schemas()}, {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
          {"security", Json::array({{{"key", Json::array()}}})}};
}

}  // namespace octet
