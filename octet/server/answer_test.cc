// How answers are worded; expectations are the shapes of OpenAI's and vLLM's documentation, written out by hand.
#include <gtest/gtest.h>

#include <limits>

#include "octet/server/openai_answer.h"
#include "octet/server/route_table.h"

namespace octet {
namespace {

const Tokenizer& tokenizer() {
  // Tokens 3 and 4 are halves of a character: both are spelled U+FFFD.
  static const Tokenizer kTokenizer(
      R"({"model":{"type":"BPE","vocab":{"The":0,"Ġcat":1,"Ġsat":2,"Ã":3,"©":4},"merges":[]},
          "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":false},"decoder":{"type":"ByteLevel"}})",
      "tokenizer.json");
  return kTokenizer;
}

ChoiceNews news() {
  ChoiceNews news;
  news.echo = "The cat";
  news.echoed_token_ids = {0, 1};
  news.echoed_logprobs = {{}, {{1, -4.5f, 9}, {2, -0.25f, 1}}};
  news.text = " sat";
  news.token_ids = {2};
  news.logprobs = {{{2, -0.5f, 1}, {2, -0.5f, 1}}};
  news.finish_reason = FinishReason::kLength;
  return news;
}

TEST(CompletionFormat, ConcatenatesTheArraysOfPromptAndAnswer) {
  const auto format = completion_format({.logprobs = true, .num_logprobs = 1, .tokenizer = &tokenizer()});
  ChoiceNews all = news();
  EXPECT_EQ(format->choice(all), Json::parse(R"({"index":0,"text":"The cat sat","logprobs":{
      "tokens":["The"," cat"," sat"],"token_logprobs":[null,-4.5,-0.5],
      "top_logprobs":[null,{" cat":-4.5," sat":-0.25},{" sat":-0.5}],"text_offset":[0,3,7]},
      "finish_reason":"length","stop_reason":null})"));
}

TEST(CompletionFormat, CountsOffsetsAcrossChunks) {
  const auto format = completion_format({.logprobs = true, .num_logprobs = 0, .tokenizer = &tokenizer()});
  ChoiceNews first = news();
  format->chunk_choices(first);
  ChoiceNews next;
  next.opens = false;
  next.text_offset = first.text_offset;
  next.token_ids = {1};
  next.logprobs = {{{1, -1.0f, 1}}};
  EXPECT_EQ(format->chunk_choices(next).at(0)["logprobs"]["text_offset"], Json::array({11}));
}

TEST(CompletionFormat, KeepsTheLargerOfTwoTokensThatAreSpelledAlike) {
  const auto format = completion_format({.logprobs = true, .num_logprobs = 2, .tokenizer = &tokenizer()});
  ChoiceNews all;
  all.token_ids = {3};
  all.logprobs = {{{3, -2.0f, 2}, {4, -1.0f, 1}, {3, -2.0f, 2}}};
  const Json logprobs = format->choice(all)["logprobs"];
  EXPECT_EQ(logprobs["top_logprobs"][0], (Json{{"\uFFFD", -1.0}}));
  EXPECT_EQ(logprobs["token_logprobs"][0], -2.0);
}

TEST(CompletionFormat, NamesTokensByIdAndHasNoInfinity) {
  const auto format = completion_format(
      {.logprobs = true, .return_token_ids = true, .return_tokens_as_token_ids = true, .tokenizer = &tokenizer()});
  ChoiceNews all;
  all.prompt_token_ids = {0};
  all.token_ids = {1};
  all.logprobs = {{{1, -std::numeric_limits<float>::infinity(), 5}}};
  all.finish_reason = FinishReason::kStop;
  all.stop_reason = std::string("x");
  EXPECT_EQ(format->choice(all), Json::parse(R"({"index":0,"text":"","logprobs":{"tokens":["token_id:1"],
      "token_logprobs":[-9999.0],"top_logprobs":[{"token_id:1":-9999.0}],"text_offset":[0]},
      "finish_reason":"stop","stop_reason":"x","token_ids":[1],"prompt_token_ids":[0]})"));
}

TEST(ChatFormat, WordsAWholeAnswer) {
  const auto format = chat_format({.logprobs = true, .num_logprobs = 1, .tokenizer = &tokenizer()});
  ChoiceNews all;
  all.text = " cat";
  all.token_ids = {1, 3};
  all.logprobs = {{{1, -1.5f, 2}, {2, -0.5f, 1}}, {{3, -1.0f, 1}}};
  all.finish_reason = FinishReason::kStop;
  all.stop_reason = 3;
  EXPECT_EQ(format->choice(all),
            Json::parse(R"({"index":0,"message":{"role":"assistant","content":" cat","refusal":null,
      "annotations":null,"audio":null,"function_call":null},"logprobs":{"content":[
      {"token":" cat","logprob":-1.5,"bytes":[32,99,97,116],"top_logprobs":[{"token":" sat","logprob":-0.5,"bytes":[32,115,97,116]}]},
      {"token":"\ufffd","logprob":-1.0,"bytes":[195],"top_logprobs":[]}],"refusal":null},
      "finish_reason":"stop","stop_reason":3})"));
}

TEST(ChatFormat, StreamsRoleThenTextThenTheEnd) {
  const auto format = chat_format({.tokenizer = &tokenizer()});
  ChoiceNews all;
  all.index = 2;
  all.text = "Hi";
  all.token_ids = {0};
  all.finish_reason = FinishReason::kStop;
  const std::vector<Json> chunks = format->chunk_choices(all);
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(
      chunks[0],
      Json::parse(R"({"index":2,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null})"));
  EXPECT_EQ(chunks[1], Json::parse(R"({"index":2,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null})"));
  EXPECT_EQ(chunks[2],
            Json::parse(R"({"index":2,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null})"));
}

ChoiceNews calling() {
  ChoiceNews news;
  news.reasoning = "Hm";
  news.token_ids = {0, 1};
  news.calls = {{"f", "{\"a\": 1}"}, {"g", "{}"}};
  news.call_ids = {"id1", "id2"};
  news.finish_reason = FinishReason::kStop;
  return news;
}

TEST(ChatFormat, WordsToolCallsAndReasoning) {
  ChoiceNews all = calling();
  const Json choice = chat_format({.tokenizer = &tokenizer()})->choice(all);
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  EXPECT_EQ(choice["message"]["reasoning"], "Hm");
  EXPECT_EQ(choice["message"]["reasoning_content"], "Hm");
  EXPECT_EQ(choice["message"]["tool_calls"], Json::parse(R"([
      {"id":"id1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},
      {"id":"id2","type":"function","function":{"name":"g","arguments":"{}"}}])"));
}

TEST(ChatFormat, StreamsToolCalls) {
  ChoiceNews all = calling();
  all.opens = false;
  all.num_calls_before = 1;
  std::vector<Json> deltas;
  for (const Json& choice : chat_format({.tokenizer = &tokenizer()})->chunk_choices(all))
    deltas.push_back(choice["delta"]);
  EXPECT_EQ(Json(deltas), Json::parse(R"([{"reasoning":"Hm","reasoning_content":"Hm"},
      {"tool_calls":[{"index":1,"id":"id1","type":"function","function":{"name":"f","arguments":""}}]},
      {"tool_calls":[{"index":1,"function":{"arguments":"{\"a\": 1}"}}]},
      {"tool_calls":[{"index":2,"id":"id2","type":"function","function":{"name":"g","arguments":""}}]},
      {"tool_calls":[{"index":2,"function":{"arguments":"{}"}}]},
      {}])"));
}

TEST(RouteTable, FindsRoutesByMethodAndPath) {
  const RouteTable table({{.method = "GET", .path = "/a", .serve = nullptr},
                          {.method = "POST", .path = "/a", .serve = nullptr},
                          {.method = "GET", .path = "/m/*", .serve = nullptr}});
  EXPECT_EQ(table.match("GET", "/a").route->method, "GET");
  EXPECT_EQ(table.match("HEAD", "/a").route->method, "GET");
  EXPECT_EQ(table.match("POST", "/a").route->method, "POST");
  EXPECT_EQ(table.match("GET", "/m/org/name").tail, "org/name");
  EXPECT_EQ(table.match("GET", "/m/").route, nullptr);
  EXPECT_EQ(table.match("DELETE", "/a").route, nullptr);
  EXPECT_EQ(table.match("DELETE", "/a").allowed_methods, "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(table.match("GET", "/b").allowed_methods, "");
}

}  // namespace
}  // namespace octet
