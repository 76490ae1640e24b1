// OutputSplitter: takes apart what a model writes: its reasoning, its answer, its calls of tools. The result does not
// depend on how the text is cut into pieces. Whatever cannot be read as a call comes out as text: nothing is lost.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

struct ToolCall {
  std::string name;
  std::string arguments;  // the JSON that the model wrote, byte for byte
};

// kHermes: <tool_call>{"name", "arguments"}</tool_call> (Qwen, Hermes). kMistral: [TOOL_CALLS] and a list, or names and
// objects. kLlama3: an answer that is nothing but {"name", "parameters"}, several parted by ';'.
enum class ToolStyle : uint8_t { kNone, kHermes, kMistral, kLlama3 };
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
  Piece push(std::string_view text);
  // The end of the answer: what was held back.
  Piece finish();
  bool in_reasoning() const { return state_ == State::kReasoning; }

 private:
  enum class State : uint8_t { kBeginning, kReasoning, kText, kCall, kRest };

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
  bool has_calls_ = false;
  bool skips_space_ = false;  // behind reasoning or a call
};

// The calls of a text that consists of nothing else; empty when it does not.
std::vector<ToolCall> read_tool_calls(std::string_view text, ToolStyle style);

}  // namespace octet
