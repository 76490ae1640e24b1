// OutputSplitter: takes apart what a model writes: its reasoning, its answer, its calls of tools. The result does not
// depend on how the text is cut into pieces. Whatever cannot be read as a call comes out as text: nothing is lost.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/server/forced_calls.h"
#include "octet/server/tool_call.h"

namespace octet {

// kOpened: the prompt ends in <think>, so the answer begins with reasoning. kPossible: it may begin with the tag
// itself.
enum class ReasoningStyle : uint8_t { kNone, kPossible, kOpened };

// What a chat template says of the model's habits.
ToolStyle tool_style_of(std::string_view template_source);
ReasoningStyle reasoning_style_of(std::string_view template_source, std::string_view prompt);

class OutputSplitter {
 public:
  struct Piece {
    std::string reasoning, text;
    std::vector<ToolCall> calls;
  };

  OutputSplitter() = default;
  OutputSplitter(ToolStyle tools, ReasoningStyle reasoning);
  // What follows the reasoning is calls of this form, and these come in pieces.
  OutputSplitter(const CallForm& form, ReasoningStyle reasoning);
  Piece push(std::string_view text);
  // The end of the answer: what was held back.
  Piece finish();
  bool in_reasoning() const { return state_ == State::kReasoning; }

 private:
  enum class State : uint8_t { kBeginning, kReasoning, kText, kCall, kRest, kForced };

  bool step(Piece& piece);
  bool begin();
  bool read_reasoning(Piece& piece);
  bool read_text(Piece& piece);
  bool read_call(Piece& piece);
  void emit_text(Piece& piece, std::string_view text);

  ToolStyle tools_ = ToolStyle::kNone;
  State state_ = State::kText;
  std::string pending_;  // not yet decided
  std::string space_;    // white space that goes out only before further text
  std::optional<ForcedCallReader> forced_;
  bool has_calls_ = false;
  bool skips_space_ = false;  // behind reasoning or a call
};

// The calls of a text that consists of nothing else; empty when it does not.
std::vector<ToolCall> read_tool_calls(std::string_view text, ToolStyle style);

}  // namespace octet
