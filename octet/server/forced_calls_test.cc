// Texts in the forms that the grammar makes a model write, cut in two at every place.
#include "octet/server/forced_calls.h"

#include <gtest/gtest.h>

#include "octet/server/output_splitter.h"

namespace octet {
namespace {

using Calls = std::vector<std::pair<std::string, std::string>>;

struct Read {
  Calls calls;
  std::string reasoning, text;
};

Read read(OutputSplitter splitter, std::string_view text, size_t cut) {
  Read read;
  const auto add = [&](const OutputSplitter::Piece& piece) {
    read.text += piece.text;
    read.reasoning += piece.reasoning;
    for (const ToolCall& call : piece.calls) {
      if (call.continues) {
        read.calls.back().second += call.arguments;
      } else {
        read.calls.emplace_back(call.name, call.arguments);
      }
    }
  };
  add(splitter.push(text.substr(0, cut)));
  add(splitter.push(text.substr(cut)));
  add(splitter.finish());
  return read;
}

TEST(ForcedCalls, ReadsEveryFormHoweverItIsCut) {
  const std::string first = R"({"a": "}\"]{", "b": [1, {"c": {}}]})", second = "{}";
  const std::vector<std::pair<ToolStyle, std::string>> texts = {
      {ToolStyle::kHermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": " + first +
                               "}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"},
      {ToolStyle::kLlama3,
       R"({"name": "f", "parameters": )" + first + R"(}; {"name": "g", "parameters": )" + second + "}"},
      {ToolStyle::kNone,
       R"([{"name": "f", "arguments": )" + first + R"(}, {"name": "g", "arguments": )" + second + "}]"},
      {ToolStyle::kMistral,
       R"([{"name": "f", "arguments": )" + first + R"(}, {"name": "g", "arguments": )" + second + "}]"},
  };
  for (const auto& [style, text] : texts) {
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      const Read plain = read(OutputSplitter(call_form(style), ReasoningStyle::kNone), text, cut);
      EXPECT_EQ(plain.calls, (Calls{{"f", first}, {"g", second}})) << text << " cut at " << cut;
      EXPECT_EQ(plain.text, "");
      const std::string thought = "hm</think>\n\n" + text;
      const Read after = read(OutputSplitter(call_form(style), ReasoningStyle::kOpened), thought, cut);
      EXPECT_EQ(after.calls, plain.calls) << cut;
      EXPECT_EQ(after.reasoning, "hm");
    }
  }
}

TEST(ForcedCalls, LetsArgumentsOutWhileTheyAreWritten) {
  ForcedCallReader reader(call_form(ToolStyle::kNone));
  std::vector<ToolCall> calls;
  std::string rest;
  reader.push(R"([{"name": "f", "arguments": {"a": "b)", calls, rest);
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].name, "f");
  EXPECT_TRUE(calls[1].continues);
  EXPECT_EQ(calls[1].arguments, R"({"a": "b)");
}

TEST(ForcedCalls, WhatIsNoCallIsText) {
  const Read lost = read(OutputSplitter(call_form(ToolStyle::kNone), ReasoningStyle::kNone), "hello [", 3);
  EXPECT_EQ(lost.text, "hello [");
  EXPECT_TRUE(lost.calls.empty());
}

}  // namespace
}  // namespace octet
