// Every text is also fed in all ways of cutting it in two and in three: the result must be the same.
#include "octet/server/output_splitter.h"

#include <gtest/gtest.h>

namespace octet {
namespace {

struct Result {
  std::string reasoning, text;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Result&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Result& result) {
  out << "reasoning [" << result.reasoning << "] text [" << result.text << "]";
  for (const auto& [name, arguments] : result.calls) out << " " << name << "(" << arguments << ")";
  return out;
}

Result split(OutputSplitter splitter, const std::vector<std::string>& pieces) {
  Result result;
  const auto add = [&](const OutputSplitter::Piece& piece) {
    result.reasoning += piece.reasoning;
    result.text += piece.text;
    for (const ToolCall& call : piece.calls) result.calls.emplace_back(call.name, call.arguments);
  };
  for (const std::string& piece : pieces) add(splitter.push(piece));
  add(splitter.finish());
  return result;
}

struct Case {
  const char* name;
  ToolStyle tools;
  ReasoningStyle reasoning;
  std::string text;
  Result expected;
};

class Splits : public testing::TestWithParam<Case> {};

TEST_P(Splits, TheSameHoweverItIsCut) {
  const Case& c = GetParam();
  const OutputSplitter splitter(c.tools, c.reasoning);
  ASSERT_EQ(split(splitter, {c.text}), c.expected);
  for (size_t i = 0; i <= c.text.size(); ++i) {
    for (size_t j = i; j <= c.text.size(); ++j) {
      ASSERT_EQ(split(splitter, {c.text.substr(0, i), c.text.substr(i, j - i), c.text.substr(j)}), c.expected)
          << "cut at " << i << " and " << j;
    }
  }
}

constexpr auto kHermes = ToolStyle::kHermes;
constexpr auto kNone = ReasoningStyle::kNone;
constexpr auto kPossible = ReasoningStyle::kPossible;

INSTANTIATE_TEST_SUITE_P(
    Outputs, Splits,
    testing::Values(
        Case{"plain", kHermes, kNone, " Hi <b>\n there \n", {"", " Hi <b>\n there \n", {}}},
        Case{"one_call",
             kHermes,
             kNone,
             "\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\":  [1, \"}\\\"\"], \"a\": "
             "\"\\u00e9\"}}\n</tool_call>\n",
             {"", "", {{"f", "{\"b\":  [1, \"}\\\"\"], \"a\": \"\\u00e9\"}"}}}},
        Case{"text_and_two_calls",
             kHermes,
             kNone,
             "Let me "
             "see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</"
             "tool_call>\n<tool_call>{\"arguments\":{\"x\":1.50},\"name\":\"g\"}</tool_call>",
             {"", "Let me see.", {{"f", "{}"}, {"g", "{\"x\":1.50}"}}}},
        Case{"broken_call_is_text",
             kHermes,
             kNone,
             "<tool_call>{\"name\":</tool_call>!",
             {"", "<tool_call>{\"name\":</tool_call>!", {}}},
        Case{"call_cut_off",
             kHermes,
             kNone,
             "a <tool_call>{\"name\": \"f\", \"argu",
             {"", "a <tool_call>{\"name\": \"f\", \"argu", {}}},
        Case{"call_without_its_end",
             kHermes,
             kNone,
             "<tool_call>{\"name\":\"f\",\"arguments\":{}}",
             {"", "", {{"f", "{}"}}}},
        Case{"marker_begun", kHermes, kNone, "a <tool_", {"", "a <tool_", {}}},
        Case{"think",
             kHermes,
             kPossible,
             "<think>\nHm <tool_call>\n</think>\n\nYes </think> no",
             {"Hm <tool_call>\n", "Yes </think> no", {}}},
        Case{"think_opened_in_the_prompt",
             ToolStyle::kNone,
             ReasoningStyle::kOpened,
             "Hm</think>\n\nYes",
             {"Hm", "Yes", {}}},
        Case{"think_without_end", ToolStyle::kNone, ReasoningStyle::kOpened, "Hm </thi", {"Hm </thi", "", {}}},
        Case{"no_think", ToolStyle::kNone, kPossible, "\n<thin air> <think>", {"", "\n<thin air> <think>", {}}},
        Case{"think_then_call",
             kHermes,
             kPossible,
             "<think>a</think>\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
             {"a", "", {{"f", "{}"}}}},
        Case{"mistral_list",
             ToolStyle::kMistral,
             kNone,
             "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
             {"", "", {{"f", "{\"a\": 1}"}, {"g", "{}"}}}},
        Case{"mistral_names",
             ToolStyle::kMistral,
             kNone,
             "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g{}",
             {"", "", {{"f", "{\"a\": 1}"}, {"g", "{}"}}}},
        Case{"mistral_broken", ToolStyle::kMistral, kNone, "x [TOOL_CALLS] [1", {"", "x [TOOL_CALLS] [1", {}}},
        Case{"llama_calls",
             ToolStyle::kLlama3,
             kNone,
             "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", \"parameters\": {}}",
             {"", "", {{"f", "{\"a\": 1}"}, {"g", "{}"}}}},
        Case{"llama_tag",
             ToolStyle::kLlama3,
             kNone,
             "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}",
             {"", "", {{"f", "{}"}}}},
        Case{"llama_json_that_is_no_call",
             ToolStyle::kLlama3,
             kNone,
             "{\"a\": 1} is JSON",
             {"", "{\"a\": 1} is JSON", {}}},
        Case{"llama_text", ToolStyle::kLlama3, kNone, "Hello {x}", {"", "Hello {x}", {}}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(OutputSplitter, KnowsStylesFromTemplates) {
  EXPECT_EQ(tool_style_of("... <tool_call> ..."), ToolStyle::kHermes);
  EXPECT_EQ(tool_style_of("... [TOOL_CALLS] ..."), ToolStyle::kMistral);
  EXPECT_EQ(tool_style_of("... <|python_tag|> ..."), ToolStyle::kLlama3);
  EXPECT_EQ(tool_style_of("plain"), ToolStyle::kNone);
  EXPECT_EQ(reasoning_style_of("<think> </think>", "assistant\n<think>\n"), ReasoningStyle::kOpened);
  EXPECT_EQ(reasoning_style_of("<think> </think>", "assistant\n<think>\n\n</think>\n\n"), ReasoningStyle::kNone);
  EXPECT_EQ(reasoning_style_of("</think>", "assistant\n"), ReasoningStyle::kPossible);
  EXPECT_EQ(reasoning_style_of("plain", "<think>"), ReasoningStyle::kNone);
}

}  // namespace
}  // namespace octet
