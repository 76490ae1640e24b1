#include "octet/text/chat_template.h"

#include <algorithm>
#include <filesystem>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/parser.h"

namespace octet {
namespace {

using jinja::Interpreter;
using jinja::Value;

constexpr int64_t kMaxTemplateBytes = int64_t{16} << 20;

// A role is what a template prints into its own markup; one that looks like a plain word may be trusted.
bool is_plain_role(const std::string& role) {
  return !role.empty() &&
         std::all_of(role.begin(), role.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

Value to_value(Interpreter& run, const Json& json, TextOrigin origin, int depth = 0) {
  if (depth > jinja::kMaxValueDepth) jinja::raise("the messages are nested too deeply");
  if (json.is_string()) return jinja::Text(jinja::to_valid_utf8(json.get_ref<const std::string&>()), origin);
  Value value(jinja::None{});
  if (json.is_boolean()) value = Value(json.get<bool>());
  if (json.is_number_unsigned()) {
    value = Value(jinja::Integer{json.get<uint64_t>()});
  } else if (json.is_number_integer()) {
    value = Value(json.get<int64_t>());
  } else if (json.is_number_float()) {
    value = Value(json.get<double>());
  } else if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json) items.push_back(to_value(run, item, origin, depth + 1));
    value = run.make_list(std::move(items));
  } else if (json.is_object()) {
    auto* dict = run.make<jinja::Dict>();
    for (const auto& [key, held] : json.items()) {
      dict->set(jinja::Text(jinja::to_valid_utf8(key), origin), to_value(run, held, origin, depth + 1));
    }
    value = Value(dict);
  }
  return value.with_origin(origin);
}

Value messages_to_value(Interpreter& run, const Json& messages) {
  Value value = to_value(run, messages, TextOrigin::kUser);
  const auto* list = value.as<jinja::Sequence>();
  if (!list) return value;
  for (size_t i = 0; i < list->items.size(); ++i) {
    auto* message = list->items[i].as<jinja::Dict>();
    const Value* role = message ? message->find_text("role") : nullptr;
    if (!role || !role->is_text()) continue;
    const std::string word(role->text().bytes());
    if (is_plain_role(word)) message->set(jinja::trusted("role"), jinja::trusted(word));
  }
  return value;
}

std::vector<std::pair<std::string, Value>> make_variables(Interpreter& run, const ChatInputs& inputs) {
  std::vector<std::pair<std::string, Value>> variables;
  const auto set = [&](const std::string& name, Value value) {
    const auto found =
        std::find_if(variables.begin(), variables.end(), [&](const auto& pair) { return pair.first == name; });
    if (found == variables.end()) {
      variables.emplace_back(name, std::move(value));
    } else {
      found->second = std::move(value);
    }
  };
  set("messages", messages_to_value(run, inputs.messages));
  set("tools", to_value(run, inputs.tools, TextOrigin::kUser));
  set("documents", Value(jinja::None{}));
  set("add_generation_prompt", Value(inputs.add_generation_prompt));
  // transformers passes only the special tokens that the tokenizer has: the others are undefined
  if (!inputs.bos_token.empty()) set("bos_token", jinja::trusted(jinja::to_valid_utf8(inputs.bos_token)));
  if (!inputs.eos_token.empty()) set("eos_token", jinja::trusted(jinja::to_valid_utf8(inputs.eos_token)));
  if (inputs.extra.is_null()) return variables;
  if (!inputs.extra.is_object()) jinja::raise("the template's extra variables must be an object");
  for (const auto& [name, value] : inputs.extra.items()) {
    set(name, to_value(run, value, name == "documents" ? TextOrigin::kUser : TextOrigin::kTrusted));
  }
  return variables;
}

std::vector<TextSpan> to_spans(const jinja::Text& text) {
  std::vector<TextSpan> spans;
  size_t begin = 0;
  for (const auto& run : text.runs()) {
    spans.push_back({std::string(text.bytes().substr(begin, run.end - begin)), run.origin});
    begin = run.end;
  }
  return spans;
}

// tokenizer_config.json's chat_template: a string, or [{"name", "template"}, ...].
std::optional<ChatTemplate> from_config(const std::string& path, std::string_view name) {
  const Json json = read_json_file(path);
  const JsonObject config(json, path);
  const Json* held = config.find_raw("chat_template");
  if (!held) return std::nullopt;
  if (held->is_string()) return ChatTemplate(held->get_ref<const std::string&>(), path);
  if (!held->is_array()) fail(ErrorCode::kModel, "{}: chat_template: expected a string or a list of templates", path);
  const Json* fallback = nullptr;
  for (const Json& entry : *held) {
    const JsonObject row(entry, path + ": chat_template");
    if (row.get_string("name") == name) return ChatTemplate(row.get_string("template"), path);
    if (row.get_string("name") == "default") fallback = &entry;
  }
  if (!fallback) return std::nullopt;
  return ChatTemplate(JsonObject(*fallback, path + ": chat_template").get_string("template"), path);
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Block block;
  std::string where;
  std::string source;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string_view where) {
  auto program = std::make_unique<Program>();
  program->where = where;
  program->source = source;
  try {
    program->block = jinja::parse_template(source);
  } catch (const jinja::SyntaxError& error) {
    fail(ErrorCode::kModel, "{}: chat template, line {}: {}", where, error.line, error.what());
  }
  program_ = std::move(program);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::optional<ChatTemplate> ChatTemplate::from_folder(const std::string& folder, std::string_view name) {
  const std::filesystem::path base(folder);
  const std::filesystem::path file = base / "chat_template.jinja";
  if (std::filesystem::exists(file)) return ChatTemplate(read_file(file.string(), kMaxTemplateBytes), file.string());
  const std::filesystem::path config = base / "tokenizer_config.json";
  if (!std::filesystem::exists(config)) return std::nullopt;
  return from_config(config.string(), name);
}

const std::string& ChatTemplate::source() const { return program_->source; }

std::vector<TextSpan> ChatTemplate::render_spans(const ChatInputs& inputs, const RenderLimits& limits) const {
  Interpreter run(limits, inputs.now_unix_seconds);
  try {
    const auto variables = make_variables(run, inputs);
    return to_spans(run.render(program_->block, variables));
  } catch (const jinja::RaisedByTemplate& error) {
    throw Error(ErrorCode::kInvalid, error.what());
  } catch (const jinja::Raised& error) {
    fail(ErrorCode::kInvalid, "{}: chat template, line {}: {}", program_->where, run.line(), error.what());
  }
}

std::string ChatTemplate::render(const ChatInputs& inputs, const RenderLimits& limits) const {
  std::string text;
  for (const TextSpan& span : render_spans(inputs, limits)) text += span.text;
  return text;
}

namespace {

std::string_view stripped(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// The text of a message: its content, or the last text part of it.
std::string text_of(const Json& message) {
  if (!message.is_object() || !message.contains("content")) return {};
  const Json& content = message["content"];
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return {};
  for (size_t i = content.size(); i-- > 0;) {
    const Json& part = content[i];
    if (part.is_object() && part.contains("text") && part["text"].is_string()) return part["text"].get<std::string>();
  }
  return {};
}

}  // namespace

void cut_after_final_message(std::vector<TextSpan>& spans, const Json& messages) {
  const std::string last = messages.is_array() && !messages.empty() ? text_of(messages.back()) : std::string();
  const std::string_view core = stripped(last);
  if (core.empty()) fail(ErrorCode::kInvalid, "continue_final_message: the last message has no text to go on with");
  std::string rendered;
  for (const TextSpan& span : spans) rendered += span.text;
  const size_t at = rendered.rfind(core);
  if (at == rendered.npos) {
    fail(ErrorCode::kInvalid, "continue_final_message: the chat template leaves the last message's text out");
  }
  // Its white space counts only where the template kept it.
  const size_t lead = static_cast<size_t>(core.data() - last.data());
  const std::string_view tail = std::string_view(last).substr(lead + core.size());
  size_t length = at + core.size();
  if (rendered.compare(length, tail.size(), tail) == 0) length += tail.size();
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].text.size() < length) {
      length -= spans[i].text.size();
      continue;
    }
    spans[i].text.resize(length);
    spans.resize(i + 1);
    return;
  }
}

}  // namespace octet
