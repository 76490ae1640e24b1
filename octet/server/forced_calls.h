// Calls that a model is made to make (tool_choice "required", or a function's name): the form in which it has to write
// them, as a grammar, and the reader of exactly that form, which lets arguments out while they are written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/sampling/grammar.h"
#include "octet/server/tool_call.h"

namespace octet {

// head open NAME middle ARGUMENTS close (between open NAME ...)* tail
struct CallForm {
  std::string head, open, middle, close, between, tail;
};
// The template's own form where one can be written without special tokens, else a list of objects.
CallForm call_form(ToolStyle style);

enum class CallCount : uint8_t { kOne, kAny };  // kAny: at least one
// `tools`: as in the request, at least one. The arguments are what each one's "parameters" allow.
GrammarSpec forced_calls_grammar(const Json& tools, CallCount count, ToolStyle style);

class ForcedCallReader {
 public:
  explicit ForcedCallReader(CallForm form) : form_(std::move(form)) {}

  // Adds text. What is certain goes to `calls`: entries that begin a call, and entries that go on with the last one.
  // What is no call at all, because it was not written by the grammar, goes to `text`.
  void push(std::string_view text, std::vector<ToolCall>& calls, std::string& rest);

 private:
  enum class State : uint8_t { kHead, kOpen, kName, kMiddle, kArguments, kClose, kNext, kEnd, kLost };

  bool step(std::vector<ToolCall>& calls, std::string& rest);
  bool take(std::string_view literal, State next);
  bool read_name(std::vector<ToolCall>& calls);
  bool read_arguments(std::vector<ToolCall>& calls);
  bool read_next();

  CallForm form_;
  State state_ = State::kHead;
  std::string pending_;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace octet
