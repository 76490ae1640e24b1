#include "octet/server/output_splitter.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "octet/base/json.h"

namespace octet {
namespace {

constexpr std::string_view kThink = "<think>", kEndOfThink = "</think>";
constexpr std::string_view kCall = "<tool_call>", kEndOfCall = "</tool_call>";
constexpr std::string_view kMistralCalls = "[TOOL_CALLS]", kMistralArguments = "[ARGS]";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// How much of the text's end may be the beginning of `marker`.
size_t begun(std::string_view text, std::string_view marker) {
  for (size_t length = std::min(text.size(), marker.size() - 1); length > 0; --length) {
    if (text.ends_with(marker.substr(0, length))) return length;
  }
  return 0;
}

// The end of the JSON value at `begin`: strings and brackets are followed, the rest is Json::accept's business.
size_t end_of_value(std::string_view text, size_t begin) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\';
      in_string = c != '"';
      if (!in_string && depth == 0) return i + 1;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return i;
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && (c == ',' || c == ':' || c == ';')) {
      return i;
    }
  }
  return text.size();
}

// The members of an object, or the elements of a list (with empty names), as they are written.
using RawValues = std::vector<std::pair<std::string, std::string_view>>;
RawValues raw_values(std::string_view json) {
  RawValues values;
  const bool is_object = json.front() == '{';
  std::string name;
  for (size_t i = 1; i + 1 < json.size();) {
    if (kSpace.find(json[i]) != kSpace.npos || json[i] == ',' || json[i] == ':') {
      ++i;
      continue;
    }
    const size_t end = end_of_value(json, i);
    const std::string_view value = trimmed(json.substr(i, end - i));
    const bool is_name = is_object && name.empty();
    if (is_name) {
      name = Json::parse(value).get<std::string>();
    } else {
      values.emplace_back(std::exchange(name, {}), value);
    }
    i = std::max(end, i + 1);
  }
  return values;
}

std::optional<ToolCall> read_object(std::string_view text) {
  text = trimmed(text);
  if (text.empty() || text.front() != '{' || !Json::accept(text)) return std::nullopt;
  ToolCall call;
  bool has_arguments = false;
  for (const auto& [name, value] : raw_values(text)) {
    if (name == "name" && value.front() == '"') call.name = Json::parse(value).get<std::string>();
    if (name != "arguments" && name != "parameters") continue;
    has_arguments = true;
    call.arguments = value.front() == '"' ? Json::parse(value).get<std::string>() : std::string(value);
  }
  if (call.name.empty()) return std::nullopt;
  if (!has_arguments) call.arguments = "{}";
  return call;
}

// Objects one after the other, parted by ';' or by nothing.
std::vector<ToolCall> read_objects(std::string_view text) {
  std::vector<ToolCall> calls;
  while (!(text = trimmed(text)).empty()) {
    const size_t end = end_of_value(text, 0);
    const auto call = read_object(text.substr(0, end));
    if (!call) return {};
    calls.push_back(*call);
    text = trimmed(text.substr(end));
    if (!text.empty() && text.front() == ';') text.remove_prefix(1);
  }
  return calls;
}

std::vector<ToolCall> read_mistral(std::string_view text) {
  std::vector<ToolCall> calls;
  while (!(text = trimmed(text)).empty()) {
    if (!text.starts_with(kMistralCalls)) return {};
    text = trimmed(text.substr(kMistralCalls.size()));
    if (text.starts_with('[')) {
      const size_t end = end_of_value(text, 0);
      if (!Json::accept(text.substr(0, end))) return {};
      for (const auto& [unused, value] : raw_values(text.substr(0, end))) {
        const auto call = read_object(value);
        if (!call) return {};
        calls.push_back(*call);
      }
      text.remove_prefix(end);
      continue;
    }
    const size_t brace = text.find('{');
    if (brace == text.npos) return {};
    std::string_view name = trimmed(text.substr(0, brace));
    if (name.ends_with(kMistralArguments)) name = trimmed(name.substr(0, name.size() - kMistralArguments.size()));
    const size_t end = end_of_value(text, brace);
    const std::string_view arguments = text.substr(brace, end - brace);
    if (name.empty() || !Json::accept(arguments)) return {};
    calls.push_back({.name = std::string(name), .arguments = std::string(arguments)});
    text.remove_prefix(end);
  }
  return calls;
}

}  // namespace

ToolStyle tool_style_of(std::string_view source) {
  if (source.find(kCall) != source.npos) return ToolStyle::kHermes;
  if (source.find(kMistralCalls) != source.npos) return ToolStyle::kMistral;
  if (source.find(kPythonTag) != source.npos) return ToolStyle::kLlama3;
  return ToolStyle::kNone;
}

ReasoningStyle reasoning_style_of(std::string_view source, std::string_view prompt) {
  if (source.find(kEndOfThink) == source.npos && source.find(kThink) == source.npos) return ReasoningStyle::kNone;
  const std::string_view end = trimmed(prompt);
  if (end.ends_with(kThink)) return ReasoningStyle::kOpened;
  return end.ends_with(kEndOfThink) ? ReasoningStyle::kNone : ReasoningStyle::kPossible;
}

std::vector<ToolCall> read_tool_calls(std::string_view text, ToolStyle style) {
  text = trimmed(text);
  if (style == ToolStyle::kMistral) return read_mistral(text);
  if (style == ToolStyle::kLlama3 && text.starts_with(kPythonTag)) text.remove_prefix(kPythonTag.size());
  return read_objects(text);
}

OutputSplitter::OutputSplitter(ToolStyle tools, ReasoningStyle reasoning) : tools_(tools) {
  if (reasoning == ReasoningStyle::kOpened) {
    state_ = State::kReasoning;
    skips_space_ = true;
  } else if (reasoning == ReasoningStyle::kPossible || tools == ToolStyle::kLlama3) {
    state_ = State::kBeginning;
  }
}

OutputSplitter::OutputSplitter(const CallForm& form, ReasoningStyle reasoning)
    : OutputSplitter(ToolStyle::kNone, reasoning) {
  forced_.emplace(form);
  if (reasoning == ReasoningStyle::kNone) state_ = State::kForced;
}

OutputSplitter::Piece OutputSplitter::push(std::string_view text) {
  pending_ += text;
  Piece piece;
  while (step(piece)) {
  }
  return piece;
}

OutputSplitter::Piece OutputSplitter::finish() {
  Piece piece;
  if (state_ == State::kForced) return piece;  // what is cut off is no call, nor text
  if (state_ == State::kReasoning) {
    piece.reasoning = std::exchange(pending_, {});
    return piece;
  }
  if (state_ == State::kRest || state_ == State::kCall) {
    piece.calls = read_tool_calls(pending_, tools_);
    has_calls_ = has_calls_ || !piece.calls.empty();
    if (!piece.calls.empty())
      pending_.clear();
    else if (state_ == State::kCall)
      pending_.insert(0, kCall);  // cut off: shown as it is
  }
  if (!has_calls_ || !trimmed(pending_).empty()) piece.text += std::exchange(space_, {}) + pending_;
  pending_.clear();
  return piece;
}

// False when more text is needed.
bool OutputSplitter::step(Piece& piece) {
  switch (state_) {
    case State::kBeginning:
      return begin();
    case State::kReasoning:
      return read_reasoning(piece);
    case State::kText:
      return read_text(piece);
    case State::kCall:
      return read_call(piece);
    case State::kRest:
      return false;
    case State::kForced:
      forced_->push(std::exchange(pending_, {}), piece.calls, piece.text);
      return false;
  }
  return false;
}

bool OutputSplitter::begin() {
  const size_t first = pending_.find_first_not_of(kSpace);
  if (first == pending_.npos) return false;
  const std::string_view text = std::string_view(pending_).substr(first);
  if (text.starts_with(kThink)) {
    pending_.erase(0, first + kThink.size());
    state_ = State::kReasoning;
    skips_space_ = true;
    return true;
  }
  if (begun(text, kThink) == text.size()) return false;
  if (tools_ == ToolStyle::kLlama3) {
    if (text.front() == '{' || text.starts_with(kPythonTag)) {
      state_ = State::kRest;
      return false;
    }
    if (begun(text, kPythonTag) == text.size()) return false;
  }
  state_ = forced_ ? State::kForced : State::kText;
  return true;
}

bool OutputSplitter::read_reasoning(Piece& piece) {
  if (skips_space_) {
    pending_.erase(0, std::min(pending_.find_first_not_of(kSpace), pending_.size()));
    if (pending_.empty()) return false;
    skips_space_ = false;
  }
  const size_t end = pending_.find(kEndOfThink);
  if (end != pending_.npos) {
    piece.reasoning += pending_.substr(0, end);
    pending_.erase(0, end + kEndOfThink.size());
    skips_space_ = true;
    state_ = tools_ == ToolStyle::kLlama3 ? State::kBeginning : State::kText;
    if (forced_) state_ = State::kForced;
    return true;
  }
  const size_t sure = pending_.size() - begun(pending_, kEndOfThink);
  piece.reasoning += pending_.substr(0, sure);
  pending_.erase(0, sure);
  return false;
}

bool OutputSplitter::read_text(Piece& piece) {
  const bool is_mistral = tools_ == ToolStyle::kMistral;
  const std::string_view marker = is_mistral ? kMistralCalls : kCall;
  const bool looks_for_calls = tools_ == ToolStyle::kHermes || is_mistral;
  const size_t at = looks_for_calls ? pending_.find(marker) : pending_.npos;
  if (at != pending_.npos) {
    emit_text(piece, std::string_view(pending_).substr(0, at));
    if (is_mistral) {
      pending_.erase(0, at);
      state_ = State::kRest;
      return false;
    }
    pending_.erase(0, at + marker.size());
    state_ = State::kCall;
    return true;
  }
  const size_t sure = pending_.size() - (looks_for_calls ? begun(pending_, marker) : 0);
  emit_text(piece, std::string_view(pending_).substr(0, sure));
  pending_.erase(0, sure);
  return false;
}

// White space is kept until text follows it: before a call and between calls it says nothing.
void OutputSplitter::emit_text(Piece& piece, std::string_view text) {
  if (tools_ == ToolStyle::kNone && !skips_space_) {
    piece.text += text;
    return;
  }
  const size_t first = text.find_first_not_of(kSpace);
  if (first == text.npos) {
    if (!skips_space_) space_ += text;
    return;
  }
  if (skips_space_) text.remove_prefix(first);
  skips_space_ = false;
  const size_t end = text.find_last_not_of(kSpace) + 1;
  piece.text += std::exchange(space_, {});
  piece.text += text.substr(0, end);
  space_ = text.substr(end);
}

bool OutputSplitter::read_call(Piece& piece) {
  const size_t end = pending_.find(kEndOfCall);
  if (end == pending_.npos) return false;
  const std::string body = pending_.substr(0, end);
  pending_.erase(0, end + kEndOfCall.size());
  state_ = State::kText;
  const auto call = read_object(body);
  if (call) {
    piece.calls.push_back(*call);
    has_calls_ = true;
    space_.clear();
    skips_space_ = true;
  } else {
    emit_text(piece, std::string(kCall) + body + std::string(kEndOfCall));
  }
  return true;
}

}  // namespace octet
