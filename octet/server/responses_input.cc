#include "octet/server/responses_input.h"

#include <limits>
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

// A string, or parts of text, as the content of a chat message.
Json text_content(const Json& content, const std::string& path) {
  if (content.is_string()) return content;
  if (!content.is_array()) fail_field(path, "must be a string or a list of parts, was {}", described(content));
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    Fields part(content[i], fmt::format("{}[{}]", path, i));
    const std::string type = required_string(part, "type");
    if (type == "input_text" || type == "output_text" || type == "text") {
      parts.push_back({{"type", "text"}, {"text", required_string(part, "text")}});
    } else if (type == "refusal") {
      parts.push_back({{"type", "text"}, {"text", required_string(part, "refusal")}});
    } else {
      fail_unsupported(part.path(), "this is a text model, which does not take \"{}\"", shortened(type, 40));
    }
  }
  return parts;
}

class ItemReader {
 public:
  void read(const Json& item, const std::string& path) {
    Fields fields(item, path);
    const std::string type = fields.string("type").value_or("message");
    if (type == "message") return read_message(fields);
    if (type == "function_call") return read_call(fields);
    if (type == "function_call_output") return read_output(fields);
    if (type == "reasoning") return read_reasoning(fields);
    if (type == "item_reference") fail_unsupported(path, "octet stores no responses: send the item itself");
    fail_unsupported(path, "octet does not know items of type \"{}\"", shortened(type, 40));
  }

  Json finish() {
    flush();
    return std::move(chat_);
  }

 private:
  void read_message(Fields& fields) {
    const std::string role = required_string(fields, "role");
    if (role != "user" && role != "assistant" && role != "system" && role != "developer") {
      fail_field(fields.path_of("role"), "must be user, assistant, system or developer, was \"{}\"",
                 shortened(role, 40));
    }
    const Json* content = fields.raw("content");
    if (!content) fail_missing(fields.path_of("content"));
    if (role != "assistant") flush();
    Json message = {{"role", role}, {"content", text_content(*content, fields.path_of("content"))}};
    if (role != "assistant") {
      chat_.push_back(std::move(message));
      return;
    }
    if (turn_.contains("content") || turn_.contains("tool_calls")) flush();
    turn_["content"] = std::move(message["content"]);
  }

  void read_call(Fields& fields) {
    turn_["tool_calls"].push_back(
        {{"id", required_string(fields, "call_id")},
         {"type", "function"},
         {"function",
          {{"name", required_string(fields, "name")}, {"arguments", required_string(fields, "arguments")}}}});
  }

  void read_output(Fields& fields) {
    flush();
    const Json* output = fields.raw("output");
    if (!output) fail_missing(fields.path_of("output"));
    chat_.push_back({{"role", "tool"},
                     {"tool_call_id", required_string(fields, "call_id")},
                     {"content", text_content(*output, fields.path_of("output"))}});
  }

  // What is encrypted nobody here can read.
  void read_reasoning(Fields& fields) {
    if (turn_.contains("content") || turn_.contains("tool_calls")) flush();
    std::string text = turn_.value("reasoning_content", "");
    const Json* content = fields.raw("content");
    if (!content || content->empty()) content = fields.raw("summary");
    if (content && !content->is_array())
      fail_field(fields.path(), "content must be a list, was {}", described(*content));
    for (size_t i = 0; content && i < content->size(); ++i) {
      Fields part((*content)[i], fmt::format("{}.content[{}]", fields.path(), i));
      text += required_string(part, "text");
    }
    if (!text.empty()) turn_["reasoning_content"] = std::move(text);
  }

  // The assistant's turn so far becomes a message.
  void flush() {
    Json turn = std::exchange(turn_, Json::object());
    if (turn.empty()) return;
    turn["role"] = "assistant";
    if (!turn.contains("content")) turn["content"] = "";
    chat_.push_back(std::move(turn));
  }

  Json chat_ = Json::array();
  Json turn_ = Json::object();
};

}  // namespace

Json chat_messages_of_input(Fields& fields, const RequestLimits& limits) {
  Json chat = Json::array();
  if (auto instructions = fields.string("instructions", kAnyLength)) {
    chat.push_back({{"role", "system"}, {"content", *std::move(instructions)}});
  }
  const Json* input = fields.raw("input");
  if (!input) fail_missing("input");
  if (input->is_string()) {
    chat.push_back({{"role", "user"}, {"content", *input}});
    return chat;
  }
  if (!input->is_array()) fail_field("input", "must be a string or a list of items, was {}", described(*input));
  if (input->empty()) fail_field("input", "must not be empty");
  if (static_cast<int64_t>(input->size()) > limits.max_messages) {
    fail_field("input", "at most {} items, was {}", limits.max_messages, input->size());
  }
  ItemReader reader;
  for (size_t i = 0; i < input->size(); ++i) reader.read((*input)[i], fmt::format("input[{}]", i));
  for (Json& message : reader.finish()) chat.push_back(std::move(message));
  if (chat.empty()) fail_field("input", "has no message");
  return chat;
}

Json chat_tools_of_responses(const Json& tools) {
  if (!tools.is_array()) fail_field("tools", "must be a list, was {}", described(tools));
  Json functions = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    Fields tool(tools[i], fmt::format("tools[{}]", i));
    if (const std::string type = required_string(tool, "type"); type != "function") {
      fail_unsupported(tool.path_of("type"), "only \"function\": octet runs no tools itself, was \"{}\"",
                       shortened(type, 40));
    }
    Json function = {{"name", required_string(tool, "name")}};
    if (const Json* parameters = tool.raw("parameters")) function["parameters"] = *parameters;
    if (auto description = tool.string("description", kAnyLength)) function["description"] = *std::move(description);
    if (const auto strict = tool.boolean("strict")) function["strict"] = *strict;
    functions.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return functions;
}

}  // namespace octet
