#include "octet/server/chat_request.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <string_view>

namespace octet {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
constexpr size_t kMaxTools = 256;
constexpr size_t kMaxKwargsBytes = size_t{64} << 10;
// What a template's own variables are called, and what Hugging Face's function takes: not for requests to set.
constexpr const char* kReservedKwargs[] = {"messages",      "tools",     "add_generation_prompt",
                                           "chat_template", "tokenize",  "continue_final_message",
                                           "bos_token",     "eos_token", "unk_token",
                                           "pad_token"};

void check_part(const Json& part, const std::string& path) {
  if (part.is_string()) return;
  Fields fields(part, path);
  const std::string type = fields.string("type").value_or("");
  if (type.empty()) fail_field(path + ".type", "is required");
  if (type != "text" && type != "input_text" && type != "output_text" && type != "refusal") {
    fail_unsupported(path, "this is a text model, which does not take \"{}\"", shortened(type, 40));
  }
  const char* key = type == "refusal" ? "refusal" : "text";
  if (!fields.string(key, std::numeric_limits<size_t>::max())) fail_field(fields.path_of(key), "is required");
}

void check_content(const Json& content, const std::string& path) {
  if (content.is_string()) return;
  if (!content.is_array()) fail_field(path, "must be a string or a list of parts, was {}", described(content));
  for (size_t i = 0; i < content.size(); ++i) check_part(content[i], fmt::format("{}[{}]", path, i));
}

void check_tool_calls(const Json& calls, const std::string& path) {
  if (!calls.is_array()) fail_field(path, "must be a list, was {}", described(calls));
  for (size_t i = 0; i < calls.size(); ++i) {
    Fields call(calls[i], fmt::format("{}[{}]", path, i));
    const Json* function = call.raw("function");
    if (!function) fail_field(call.path_of("function"), "is required");
    Fields named(*function, call.path_of("function"));
    if (!named.string("name")) fail_field(named.path_of("name"), "is required");
    const Json* arguments = named.raw("arguments");
    if (arguments && !arguments->is_string() && !arguments->is_object()) {
      fail_field(named.path_of("arguments"), "must be a string of JSON, was {}", described(*arguments));
    }
  }
}

void check_message(const Json& message, const std::string& path) {
  Fields fields(message, path);
  const auto role = fields.string("role");
  if (!role) throw ApiError(400, "missing_required_parameter", path + ".role: is required", path + ".role");
  if (std::find(kRoles.begin(), kRoles.end(), *role) == kRoles.end()) {
    fail_field(path + ".role", "must be system, developer, user, assistant or tool, was \"{}\"", shortened(*role, 40));
  }
  const Json* content = fields.raw("content");
  const Json* calls = fields.raw("tool_calls");
  if (content) check_content(*content, path + ".content");
  if (calls) check_tool_calls(*calls, path + ".tool_calls");
  if (!content && *role != "assistant") {
    throw ApiError(400, "missing_required_parameter", path + ".content: is required", path + ".content");
  }
  if (*role == "tool" && !fields.string("tool_call_id")) {
    throw ApiError(400, "missing_required_parameter", path + ".tool_call_id: is required", path + ".tool_call_id");
  }
}

std::string joined_parts(const Json& parts) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += '\n';
    const Json& part = parts[i];
    if (part.is_string()) {
      text += part.get_ref<const std::string&>();
    } else {
      text += part.value(part.value("type", "") == "refusal" ? "refusal" : "text", "");
    }
  }
  return text;
}

bool is_tool_name(const std::string& name) {
  constexpr size_t kMaxBytes = 64;
  return !name.empty() && name.size() <= kMaxBytes && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
  });
}

void check_tools(const Json& tools) {
  if (!tools.is_array()) fail_field("tools", "must be a list, was {}", described(tools));
  if (tools.size() > kMaxTools) fail_field("tools", "at most {}, was {}", kMaxTools, tools.size());
  for (size_t i = 0; i < tools.size(); ++i) {
    Fields tool(tools[i], fmt::format("tools[{}]", i));
    const std::string type = tool.string("type").value_or("function");
    if (type != "function") fail_unsupported(tool.path_of("type"), "only functions, was \"{}\"", shortened(type, 40));
    const Json* function = tool.raw("function");
    if (!function) fail_field(tool.path_of("function"), "is required");
    Fields named(*function, tool.path_of("function"));
    if (!is_tool_name(named.string("name").value_or(""))) {
      fail_field(named.path_of("name"), "must have 1 to 64 letters, digits, '_', '-' or '.'");
    }
    const Json* parameters = named.raw("parameters");
    if (parameters && !parameters->is_object()) {
      fail_field(named.path_of("parameters"), "must be a JSON schema, was {}", described(*parameters));
    }
  }
}

// The tool that {"type": "function", "function": {"name"}} names, alone in a list.
Json named_tool(const Json& choice, const Json& tools) {
  Fields fields(choice, "tool_choice");
  if (const auto type = fields.string("type"); type != "function") {
    fail_unsupported("tool_choice.type", "only \"function\", was {}", described(choice.value("type", Json())));
  }
  const Json* function = fields.raw("function");
  if (!function) fail_field("tool_choice.function", "is required");
  const auto name = Fields(*function, "tool_choice.function").string("name");
  for (const Json& tool : tools) {
    if (name && tool["function"]["name"] == *name) return Json::array({tool});
  }
  fail_field("tool_choice.function.name", "must be the name of one of the tools");
}

void force_calls(const Json& tools, const Json& choice, CallCount count, const ModelFacts& facts,
                 ChatRequest& request) {
  GenerationRequest& generation = request.generation;
  if (generation.sampling.grammar) fail_field("tool_choice", "not together with {}", generation.grammar_field);
  request.must_call_tools = true;
  request.calls_named_tool = choice.is_object();
  const Json callable = request.calls_named_tool ? named_tool(choice, tools) : tools;
  if (request.calls_named_tool) count = CallCount::kOne;
  generation.sampling.grammar = forced_calls_grammar(callable, count, facts.tool_style);
  generation.grammar_field = "tools";
}

// "auto" leaves it to the model. Being made to call works with every template: the grammar says how.
void read_tools(Fields& fields, const ModelFacts& facts, ChatRequest& request) {
  const Json* tools = fields.raw("tools");
  const Json* choice = fields.raw("tool_choice");
  const bool parallel = fields.boolean("parallel_tool_calls").value_or(true);
  if (tools) check_tools(*tools);
  const bool has_tools = tools && !tools->empty();
  if (choice && !choice->is_object() && *choice != "none" && *choice != "auto" && *choice != "required") {
    fail_field("tool_choice", "must be none, auto, required or a function, was {}", described(*choice));
  }
  const bool forced = choice && (choice->is_object() || *choice == "required");
  if (forced && !has_tools) fail_field("tool_choice", "only with tools");
  if (!has_tools || (choice && *choice == "none")) return;
  request.options.tools = *tools;
  if (forced) return force_calls(*tools, *choice, parallel ? CallCount::kAny : CallCount::kOne, facts, request);
  if (facts.tool_style == ToolStyle::kNone) {
    fail_unsupported("tools", "the model's chat template has no form of tool calls that octet reads");
  }
  if (request.generation.sampling.grammar) {
    fail_unsupported("tools", "not together with {} but with tool_choice none", request.generation.grammar_field);
  }
  request.may_call_tools = true;
  // Mistral's marker is a special token.
  if (facts.tool_style == ToolStyle::kMistral) request.generation.sampling.skip_special_tokens = false;
}

void read_logprobs(Fields& fields, const ModelFacts& facts, SamplingParams& sampling) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto count = fields.integer("top_logprobs", 0, facts.limits.max_logprobs);
  if (count && *count > 0 && !wanted) fail_field("top_logprobs", "only with logprobs=true");
  if (wanted) sampling.logprobs = static_cast<int32_t>(count.value_or(0));
}

}  // namespace

Json read_messages(Fields& fields, const RequestLimits& limits) {
  const std::string path = fields.path_of("messages");
  const Json* messages = fields.raw("messages");
  if (!messages) throw ApiError(400, "missing_required_parameter", path + ": is required", path);
  if (!messages->is_array()) fail_field(path, "must be a list, was {}", described(*messages));
  if (messages->empty()) fail_field(path, "must not be empty");
  if (static_cast<int64_t>(messages->size()) > limits.max_messages) {
    fail_field(path, "at most {} messages, was {}", limits.max_messages, messages->size());
  }
  for (size_t i = 0; i < messages->size(); ++i) check_message((*messages)[i], fmt::format("{}[{}]", path, i));
  return *messages;
}

void read_template_options(Fields& fields, const Json& messages, ChatOptions& options) {
  if (fields.raw("chat_template")) {
    fail_unsupported("chat_template", "templates in requests are not accepted; start the server with --chat-template");
  }
  options.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
  options.continue_final_message = fields.boolean("continue_final_message").value_or(false);
  if (options.continue_final_message) {
    if (options.add_generation_prompt && fields.raw("add_generation_prompt")) {
      fail_field("continue_final_message", "not together with add_generation_prompt=true");
    }
    options.add_generation_prompt = false;
    if (messages.back().value("role", "") != "assistant") {
      fail_field("continue_final_message", "the last message must be the assistant's");
    }
  }
  if (const Json* kwargs = fields.raw("chat_template_kwargs")) {
    if (!kwargs->is_object()) fail_field("chat_template_kwargs", "must be an object, was {}", described(*kwargs));
    for (const char* name : kReservedKwargs) {
      if (kwargs->contains(name)) fail_field(std::string("chat_template_kwargs.") + name, "may not be set here");
    }
    if (kwargs->dump(-1, ' ', false, Json::error_handler_t::replace).size() > kMaxKwargsBytes) {
      fail_field("chat_template_kwargs", "at most {} bytes", kMaxKwargsBytes);
    }
    options.template_kwargs = *kwargs;
  }
  if (const Json* documents = fields.raw("documents")) options.template_kwargs["documents"] = *documents;
  if (const auto effort = fields.string("reasoning_effort", 64)) options.template_kwargs["reasoning_effort"] = *effort;
}

Json plain_messages(const Json& messages) {
  Json plain = messages;
  for (Json& message : plain) {
    if (message.value("role", "") == "developer") message["role"] = "system";
    Json& content = message["content"];  // an absent one is null
    if (content.is_array()) content = joined_parts(content);
    if (content.is_null()) content = "";
    if (!message.contains("tool_calls") || !message["tool_calls"].is_array()) continue;
    for (Json& call : message["tool_calls"]) {
      Json& function = call["function"];
      if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
      Json parsed = Json::parse(function["arguments"].get<std::string>(), nullptr, false);
      if (parsed.is_object()) function["arguments"] = std::move(parsed);
    }
  }
  return plain;
}

ChatRequest read_chat(const Json& body, const ModelFacts& facts) {
  Fields fields(body, "");
  ChatRequest request;
  GenerationRequest& generation = request.generation;
  generation = read_generation(fields, facts);
  read_logprobs(fields, facts, generation.sampling);
  read_tools(fields, facts, request);
  const auto older = fields.integer("max_tokens", 1, kMaxInt32);
  const auto newer = fields.integer("max_completion_tokens", 1, kMaxInt32);
  generation.sampling.max_tokens = std::nullopt;  // to the end of the context
  take_max_tokens(newer ? newer : older, generation);
  generation.add_special_tokens = fields.boolean("add_special_tokens").value_or(false);
  request.messages = read_messages(fields, facts.limits);
  read_template_options(fields, request.messages, request.options);
  if (const Json* modalities = fields.raw("modalities"); modalities && *modalities != Json::array({"text"})) {
    fail_unsupported("modalities", "only [\"text\"]");
  }
  request.include_reasoning = fields.boolean("include_reasoning").value_or(true);
  for (const char* name : {"prediction", "verbosity"}) fields.raw(name);
  note_unknown(fields);
  return request;
}

}  // namespace octet
