#include "octet/server/forced_calls.h"

#include <algorithm>
#include <utility>

namespace octet {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr int kMaxWhitespace = 8;

}  // namespace

CallForm call_form(ToolStyle style) {
  CallForm form{
      .head = "", .open = "{\"name\": \"", .middle = "\", \"arguments\": ", .close = "}", .between = "", .tail = ""};
  if (style == ToolStyle::kHermes) {
    form.open.insert(0, "<tool_call>\n");
    form.close += "\n</tool_call>";
    form.between = "\n";
  } else if (style == ToolStyle::kLlama3) {
    form.middle = "\", \"parameters\": ";
    form.between = "; ";
  } else {
    form.head = "[";
    form.between = ", ";
    form.tail = "]";
  }
  return form;
}

GrammarSpec forced_calls_grammar(const Json& tools, CallCount count, ToolStyle style) {
  const CallForm form = call_form(style);
  Json tags = Json::array();
  for (const Json& tool : tools) {
    const Json& function = tool["function"];
    Json parameters = {{"type", "object"}, {"additionalProperties", true}};
    if (const auto given = function.find("parameters"); given != function.end() && given->is_object())
      parameters = *given;
    if (parameters.empty() || !parameters.contains("type")) parameters["type"] = "object";
    tags.push_back(
        {{"type", "tag"},
         {"begin", form.open + function["name"].get<std::string>() + form.middle},
         {"content", {{"type", "json_schema"}, {"json_schema", parameters}, {"max_whitespace_cnt", kMaxWhitespace}}},
         {"end", form.close}});
  }
  Json calls = {{"type", "tags_with_separator"},
                {"tags", std::move(tags)},
                {"separator", form.between},
                {"at_least_one", true},
                {"stop_after_first", count == CallCount::kOne}};
  if (!form.head.empty()) {
    const Json head = {{"type", "const_string"}, {"value", form.head}};
    const Json tail = {{"type", "const_string"}, {"value", form.tail}};
    calls = {{"type", "sequence"}, {"elements", Json::array({head, calls, tail})}};
  }
  const Json tag = {{"type", "structural_tag"}, {"format", std::move(calls)}};
  return {.kind = GrammarSpec::Kind::kStructuralTag, .text = tag.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

void ForcedCallReader::push(std::string_view text, std::vector<ToolCall>& calls, std::string& rest) {
  pending_ += text;
  while (step(calls, rest)) {
  }
}

// False when more text is needed.
bool ForcedCallReader::step(std::vector<ToolCall>& calls, std::string& rest) {
  switch (state_) {
    case State::kHead:  // white space may be left of what stood before
      pending_.erase(0, std::min(pending_.find_first_not_of(kSpace), pending_.size()));
      return !pending_.empty() && take(form_.head, State::kOpen);
    case State::kOpen:
      return take(form_.open, State::kName);
    case State::kName:
      return read_name(calls);
    case State::kMiddle:
      return take(form_.middle, State::kArguments);
    case State::kArguments:
      return read_arguments(calls);
    case State::kClose:
      return take(form_.close, State::kNext);
    case State::kNext:
      return read_next();
    case State::kEnd:
    case State::kLost:
      rest += std::exchange(pending_, {});
      return false;
  }
  return false;
}

bool ForcedCallReader::take(std::string_view literal, State next) {
  if (pending_.starts_with(literal)) {
    pending_.erase(0, literal.size());
    state_ = next;
    return true;
  }
  if (literal.starts_with(pending_)) return false;
  state_ = State::kLost;
  return true;
}

bool ForcedCallReader::read_name(std::vector<ToolCall>& calls) {
  const size_t end = pending_.find('"');
  if (end == pending_.npos) return false;
  calls.push_back({.name = pending_.substr(0, end), .arguments = ""});
  pending_.erase(0, end);
  state_ = State::kMiddle;
  return true;
}

bool ForcedCallReader::read_arguments(std::vector<ToolCall>& calls) {
  if (pending_.empty()) return false;
  size_t end = 0;
  bool complete = false;
  while (end < pending_.size() && !complete) {
    const char c = pending_[end++];
    if (in_string_) {
      if (!escaped_ && c == '"') in_string_ = false;
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      complete = --depth_ == 0;
    }
  }
  calls.push_back({.name = "", .arguments = pending_.substr(0, end), .continues = true});
  pending_.erase(0, end);
  if (complete) state_ = State::kClose;
  return complete;
}

bool ForcedCallReader::read_next() {
  if (pending_.empty()) return false;
  if (!form_.tail.empty() && pending_.starts_with(form_.tail)) {
    pending_.erase(0, form_.tail.size());
    state_ = State::kEnd;
    return true;
  }
  return take(form_.between, State::kOpen);
}

}  // namespace octet
