#include "octet/server/messages_request.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

namespace octet {
namespace {

constexpr size_t kAnyLength = std::numeric_limits<size_t>::max();

[[noreturn]] void fail_missing(const std::string& path) {
  throw ApiError(400, "missing_required_parameter", path + ": is required", path);
}

std::string required_string(Fields& fields, const char* key) {
  auto value = fields.string(key, kAnyLength);
  if (!value) fail_missing(fields.path_of(key));
  return *std::move(value);
}

Json text_part(Fields& block) { return {{"type", "text"}, {"text", required_string(block, "text")}}; }

// Calls use(block, type) for each block of a content that is a list.
template <class Use>
void for_blocks(const Json& content, const std::string& path, const Use& use) {
  if (!content.is_array()) fail_field(path, "must be a string or a list of blocks, was {}", described(content));
  for (size_t i = 0; i < content.size(); ++i) {
    Fields block(content[i], fmt::format("{}[{}]", path, i));
    block.raw("cache_control");  // the prefix cache finds by itself what may be reused
    use(block, required_string(block, "type"));
  }
}

// A string, or text blocks as the parts of a chat message.
Json text_content(const Json& content, const std::string& path) {
  if (content.is_string()) return content;
  Json parts = Json::array();
  for_blocks(content, path, [&](Fields& block, const std::string& type) {
    if (type != "text") fail_unsupported(block.path(), "only text here, was \"{}\"", shortened(type, 40));
    parts.push_back(text_part(block));
  });
  return parts;
}

Json tool_message(Fields& block) {
  Json message = {{"role", "tool"}, {"tool_call_id", required_string(block, "tool_use_id")}, {"content", ""}};
  if (const Json* content = block.raw("content")) {
    message["content"] = text_content(*content, block.path_of("content"));
  }
  block.boolean("is_error");  // no template knows it; the content says so
  return message;
}

// The results of tools are messages of their own in a chat.
void add_user_message(const Json& content, const std::string& path, Json& chat) {
  Json parts = Json::array();
  const auto flush = [&] {
    if (!parts.empty()) chat.push_back({{"role", "user"}, {"content", std::exchange(parts, Json::array())}});
  };
  for_blocks(content, path, [&](Fields& block, const std::string& type) {
    if (type == "text") {
      parts.push_back(text_part(block));
    } else if (type == "tool_result") {
      flush();
      chat.push_back(tool_message(block));
    } else {
      fail_unsupported(block.path(), "this is a text model, which does not take \"{}\"", shortened(type, 40));
    }
  });
  flush();
}

Json tool_call(Fields& block) {
  const Json* input = block.raw("input");
  if (!input || !input->is_object()) fail_field(block.path_of("input"), "must be an object");
  return {{"id", required_string(block, "id")},
          {"type", "function"},
          {"function", {{"name", required_string(block, "name")}, {"arguments", dump_line(*input)}}}};
}

void add_assistant_message(const Json& content, const std::string& path, Json& chat) {
  Json parts = Json::array(), calls = Json::array();
  std::string reasoning;
  for_blocks(content, path, [&](Fields& block, const std::string& type) {
    if (type == "text") {
      parts.push_back(text_part(block));
    } else if (type == "tool_use") {
      calls.push_back(tool_call(block));
    } else if (type == "thinking") {
      reasoning += required_string(block, "thinking");
    } else if (type != "redacted_thinking") {
      fail_unsupported(block.path(), "octet does not know \"{}\"", shortened(type, 40));
    }
  });
  Json message = {{"role", "assistant"}, {"content", std::move(parts)}};
  if (!calls.empty()) message["tool_calls"] = std::move(calls);
  if (!reasoning.empty()) message["reasoning_content"] = std::move(reasoning);
  chat.push_back(std::move(message));
}

Json chat_messages(Fields& fields, const RequestLimits& limits) {
  Json chat = Json::array();
  if (const Json* system = fields.raw("system")) {
    chat.push_back({{"role", "system"}, {"content", text_content(*system, "system")}});
  }
  const Json* messages = fields.raw("messages");
  if (!messages) fail_missing("messages");
  if (!messages->is_array()) fail_field("messages", "must be a list, was {}", described(*messages));
  if (messages->empty()) fail_field("messages", "must not be empty");
  if (static_cast<int64_t>(messages->size()) > limits.max_messages) {
    fail_field("messages", "at most {} messages, was {}", limits.max_messages, messages->size());
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    Fields message((*messages)[i], fmt::format("messages[{}]", i));
    const std::string role = required_string(message, "role");
    const Json* content = message.raw("content");
    if (role != "user" && role != "assistant") {
      fail_field(message.path_of("role"), "must be user or assistant, was \"{}\"", shortened(role, 40));
    }
    if (!content) fail_missing(message.path_of("content"));
    if (role == "user" && content->is_array() && content->empty()) {
      fail_field(message.path_of("content"), "must not be empty");
    }
    if (content->is_string()) {
      chat.push_back({{"role", role}, {"content", *content}});
    } else if (role == "user") {
      add_user_message(*content, message.path_of("content"), chat);
    } else {
      add_assistant_message(*content, message.path_of("content"), chat);
    }
  }
  return chat;
}

Json chat_tools(const Json& tools) {
  if (!tools.is_array()) fail_field("tools", "must be a list, was {}", described(tools));
  Json functions = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    Fields tool(tools[i], fmt::format("tools[{}]", i));
    if (const std::string type = tool.string("type").value_or("custom"); type != "custom") {
      fail_unsupported(tool.path_of("type"), "only \"custom\": octet runs no tools itself, was \"{}\"",
                       shortened(type, 40));
    }
    const Json* schema = tool.raw("input_schema");
    if (!schema) fail_missing(tool.path_of("input_schema"));
    if (!schema->is_object()) {
      fail_field(tool.path_of("input_schema"), "must be a JSON schema, was {}", described(*schema));
    }
    Json function = {{"name", required_string(tool, "name")}, {"parameters", *schema}};
    if (auto description = tool.string("description", kAnyLength)) function["description"] = *std::move(description);
    functions.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return functions;
}

void add_tool_choice(const Json& given, Json& chat) {
  Fields choice(given, "tool_choice");
  const std::string type = required_string(choice, "type");
  if (choice.boolean("disable_parallel_tool_use").value_or(false)) chat["parallel_tool_calls"] = false;
  if (type == "auto" || type == "none") {
    chat["tool_choice"] = type;
  } else if (type == "any") {
    chat["tool_choice"] = "required";
  } else if (type == "tool") {
    const std::string name = required_string(choice, "name");
    const Json tools = chat.value("tools", Json::array());
    const bool known =
        std::any_of(tools.begin(), tools.end(), [&](const Json& tool) { return tool["function"]["name"] == name; });
    if (!known) fail_field("tool_choice.name", "must be the name of one of the tools");
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", name}}}};
  } else {
    fail_field("tool_choice.type", "must be auto, any, tool or none, was \"{}\"", shortened(type, 40));
  }
}

// Templates that can be told (Qwen3's) know it as enable_thinking; a budget has nothing to set.
void add_thinking(const Json& given, Json& chat) {
  Fields thinking(given, "thinking");
  const std::string type = required_string(thinking, "type");
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    fail_field("thinking.type", "must be enabled, disabled or adaptive, was \"{}\"", shortened(type, 40));
  }
  for (const char* name : {"budget_tokens", "display"}) thinking.raw(name);
  chat["chat_template_kwargs"] = {{"enable_thinking", type != "disabled"}};
  chat["include_reasoning"] = type != "disabled";
}

void add_output_config(const Json& given, Json& chat) {
  Fields config(given, "output_config");
  if (auto effort = config.string("effort", 64)) chat["reasoning_effort"] = *std::move(effort);
  const Json* format = config.raw("format");
  if (!format) return;
  Fields fields(*format, "output_config.format");
  if (const std::string type = required_string(fields, "type"); type != "json_schema") {
    fail_field("output_config.format.type", "must be json_schema, was \"{}\"", shortened(type, 40));
  }
  const Json* schema = fields.raw("schema");
  if (!schema) fail_missing("output_config.format.schema");
  chat["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"name", "answer"}, {"schema", *schema}}}};
}

enum class Purpose : uint8_t { kAnswer, kCount };

// The body of POST /v1/chat/completions that means the same.
Json chat_body(Fields& fields, const ModelFacts& facts, Purpose purpose) {
  Json chat = {{"model", read_model(fields, facts)}};
  if (const Json* max_tokens = fields.raw("max_tokens")) {
    chat["max_tokens"] = *max_tokens;
  } else if (purpose == Purpose::kAnswer) {
    fail_missing("max_tokens");
  }
  chat["messages"] = chat_messages(fields, facts.limits);
  if (chat["messages"].back()["role"] == "assistant") {  // the model goes on with it
    if (chat["messages"].back().contains("tool_calls")) fail_field("messages", "must not end in a tool_use block");
    chat["continue_final_message"] = true;
  }
  if (const Json* tools = fields.raw("tools")) chat["tools"] = chat_tools(*tools);
  if (const Json* choice = fields.raw("tool_choice")) add_tool_choice(*choice, chat);
  if (const Json* thinking = fields.raw("thinking")) add_thinking(*thinking, chat);
  if (const Json* config = fields.raw("output_config")) add_output_config(*config, chat);
  if (const Json* stops = fields.raw("stop_sequences")) chat["stop"] = *stops;
  constexpr std::array<const char*, 4> kSame = {"stream", "temperature", "top_p", "top_k"};
  for (const char* name : kSame) {
    if (const Json* value = fields.raw(name)) chat[name] = *value;
  }
  for (const char* name : {"mcp_servers", "container"}) {
    const Json* value = fields.raw(name);
    if (value && !value->empty()) fail_unsupported(name, "octet runs no tools itself");
  }
  for (const char* name : {"metadata", "service_tier", "betas", "context_management", "inference_geo"}) {
    fields.raw(name);
  }
  note_unknown(fields);
  return chat;
}

ChatRequest read(const Json& body, const ModelFacts& facts, Purpose purpose) {
  Fields fields(body, "");
  return read_chat(chat_body(fields, facts, purpose), facts);
}

}  // namespace

ChatRequest read_messages_request(const Json& body, const ModelFacts& facts) {
  return read(body, facts, Purpose::kAnswer);
}

ChatRequest read_count_tokens(const Json& body, const ModelFacts& facts) { return read(body, facts, Purpose::kCount); }

}  // namespace octet
