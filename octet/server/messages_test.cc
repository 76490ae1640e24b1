// Anthropic's dialect: bodies as the chat requests that they mean, answers as its documentation shows them.
#include <gtest/gtest.h>

#include "octet/server/json_body.h"
#include "octet/server/messages_answer.h"
#include "octet/server/messages_request.h"

namespace octet {
namespace {

ModelFacts facts() {
  ModelFacts facts;
  facts.names = {"m"};
  facts.vocab_size = 100;
  facts.max_model_len = 50;
  facts.tool_style = ToolStyle::kHermes;
  return facts;
}

// Without the order of keys.
nlohmann::json sorted(const Json& json) { return nlohmann::json::parse(json.dump()); }

ChatRequest messages(const std::string& body) { return read_messages_request(parse_body(body), facts()); }

TEST(MessagesRequest, MeansAChatRequest) {
  const ChatRequest request = messages(R"({"model":"m","max_tokens":9,"stop_sequences":["x"],"temperature":0.5,
      "top_p":0.9,"top_k":5,"stream":true,"metadata":{"user_id":"u"},
      "system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],
      "messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"c"},
          {"type":"tool_use","id":"t1","name":"f","input":{"k":1}},{"type":"tool_use","id":"t2","name":"g","input":{}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"one"},
          {"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"two"}],"is_error":true},
          {"type":"text","text":"d"}]}]})");
  EXPECT_EQ(sorted(plain_messages(request.messages)), nlohmann::json::parse(R"([
      {"role":"system","content":"Be brief."},
      {"role":"user","content":"a\nb"},
      {"role":"assistant","content":"c","reasoning_content":"hm","tool_calls":[
        {"id":"t1","type":"function","function":{"name":"f","arguments":{"k":1}}},
        {"id":"t2","type":"function","function":{"name":"g","arguments":{}}}]},
      {"role":"tool","tool_call_id":"t1","content":"one"},
      {"role":"tool","tool_call_id":"t2","content":"two"},
      {"role":"user","content":"d"}])"));
  const SamplingParams& sampling = request.generation.sampling;
  EXPECT_EQ(sampling.max_tokens, 9);
  EXPECT_EQ(sampling.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.top_k, 5);
  EXPECT_TRUE(request.generation.stream);
  EXPECT_TRUE(request.options.add_generation_prompt);
}

std::string with(const std::string& fields) {
  return R"({"max_tokens":5,"messages":[{"role":"user","content":"x"}],)" + fields + "}";
}
const std::string kTools = R"("tools":[{"name":"f","description":"d","input_schema":{"type":"object"}},
                                        {"type":"custom","name":"g","input_schema":{}}])";

TEST(MessagesRequest, TakesTools) {
  const ChatRequest any = messages(with(kTools));
  EXPECT_TRUE(any.may_call_tools);
  EXPECT_EQ(sorted(any.options.tools[0]), nlohmann::json::parse(R"({"type":"function","function":
      {"name":"f","description":"d","parameters":{"type":"object"}}})"));
  EXPECT_TRUE(messages(with(kTools + R"(,"tool_choice":{"type":"auto"})")).may_call_tools);
  EXPECT_FALSE(messages(with(kTools + R"(,"tool_choice":{"type":"none"})")).may_call_tools);
  EXPECT_TRUE(messages(with(kTools + R"(,"tool_choice":{"type":"any"})")).must_call_tools);
  const ChatRequest named = messages(with(kTools + R"(,"tool_choice":{"type":"tool","name":"g"})"));
  EXPECT_TRUE(named.must_call_tools && named.calls_named_tool);
}

TEST(MessagesRequest, TakesThinkingFormsAndBeginnings) {
  const ChatRequest off = messages(with(R"("thinking":{"type":"disabled"})"));
  EXPECT_EQ(off.options.template_kwargs["enable_thinking"], false);
  EXPECT_FALSE(off.include_reasoning);
  const ChatRequest on = messages(with(R"("thinking":{"type":"enabled","budget_tokens":1024})"));
  EXPECT_EQ(on.options.template_kwargs["enable_thinking"], true);
  EXPECT_TRUE(on.include_reasoning && messages(with(R"("top_k":1)")).include_reasoning);
  const ChatRequest form = messages(with(R"("output_config":{"effort":"low","format":{"type":"json_schema",
                                             "schema":{"type":"object"}}})"));
  EXPECT_EQ(form.generation.sampling.grammar->kind, GrammarSpec::Kind::kJsonSchema);
  EXPECT_EQ(form.options.template_kwargs["reasoning_effort"], "low");
  const ChatRequest begun = messages(R"({"max_tokens":5,"messages":[{"role":"user","content":"x"},
                                         {"role":"assistant","content":"The answer is"}]})");
  EXPECT_TRUE(begun.options.continue_final_message);
  EXPECT_FALSE(begun.options.add_generation_prompt);
}

struct Refused {
  std::string body, code, param;
};

TEST(MessagesRequest, RefusesFields) {
  const std::string bad = "invalid_value", missing = "missing_required_parameter", unknown = "not_supported_error";
  const auto list = [](const std::string& text) { return R"({"max_tokens":5,"messages":)" + text + "}"; };
  const auto user = [&](const std::string& block) { return list(R"([{"role":"user","content":[)" + block + "]}]"); };
  const auto model = [&](const std::string& block) {
    return list(R"([{"role":"assistant","content":[)" + block + R"(]},{"role":"user","content":"x"}])");
  };
  for (const Refused& refused : std::vector<Refused>{
           {R"({"messages":[{"role":"user","content":"x"}]})", missing, "max_tokens"},
           {R"({"max_tokens":5})", missing, "messages"},
           {R"({"max_tokens":0,"messages":[{"role":"user","content":"x"}]})", bad, "max_tokens"},
           {list("[]"), bad, "messages"},
           {list("{}"), bad, "messages"},
           {list("[1]"), bad, "messages[0]"},
           {list("[{}]"), missing, "messages[0].role"},
           {list(R"([{"role":"system","content":"x"}])"), bad, "messages[0].role"},
           {list(R"([{"role":"user"}])"), missing, "messages[0].content"},
           {list(R"([{"role":"user","content":7}])"), bad, "messages[0].content"},
           {user(""), bad, "messages[0].content"},
           {user("{}"), missing, "messages[0].content[0].type"},
           {user(R"({"type":"text"})"), missing, "messages[0].content[0].text"},
           {user(R"({"type":"image","source":{}})"), unknown, "messages[0].content[0]"},
           {user(R"({"type":"tool_result"})"), missing, "messages[0].content[0].tool_use_id"},
           {user(R"({"type":"tool_result","tool_use_id":"t","content":[{"type":"image"}]})"), unknown,
            "messages[0].content[0].content[0]"},
           {model(R"({"type":"tool_use","name":"f","input":{}})"), missing, "messages[0].content[0].id"},
           {model(R"({"type":"tool_use","id":"t","name":"f","input":"{}"})"), bad, "messages[0].content[0].input"},
           {model(R"({"type":"server_tool_use"})"), unknown, "messages[0].content[0]"},
           {list(R"([{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]}])"), bad,
            "messages"},
           {with(R"("system":[{"type":"image"}])"), unknown, "system[0]"},
           {with(R"("tools":[{"type":"bash_20250124","name":"bash"}])"), unknown, "tools[0].type"},
           {with(R"("tools":[{"name":"f"}])"), missing, "tools[0].input_schema"},
           {with(kTools + R"(,"tool_choice":{"type":"tool","name":"h"})"), bad, "tool_choice.name"},
           {with(kTools + R"(,"tool_choice":{"type":"all"})"), bad, "tool_choice.type"},
           {with(kTools + R"(,"tool_choice":"any")"), bad, "tool_choice"},
           {with(R"("thinking":{"type":"maybe"})"), bad, "thinking.type"},
           {with(R"("output_config":{"format":{"type":"text"}})"), bad, "output_config.format.type"},
           {with(R"("mcp_servers":[{}])"), unknown, "mcp_servers"},
           {with(R"("temperature":3)"), bad, "temperature"},
           {with(R"("model":"other")"), "model_not_found", "model"},
       }) {
    try {
      messages(refused.body);
      ADD_FAILURE() << "accepted: " << refused.body;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.code, refused.code) << refused.body << ": " << error.what();
      EXPECT_EQ(error.param, refused.param) << refused.body << ": " << error.what();
    }
  }
}

TEST(MessagesRequest, CountsWithoutALimitOfTheAnswer) {
  EXPECT_EQ(read_count_tokens(parse_body(R"({"messages":[{"role":"user","content":"x"}]})"), facts()).messages.size(),
            1u);
}

ChoiceNews calling() {
  ChoiceNews news;
  news.reasoning = "Hm";
  news.text = "Let me look.";
  news.calls = {{"f", "{\"a\": 1}"}, {"g", "{"}, {"", "}", true}};
  news.call_ids = {"1", "2"};
  news.finish_reason = FinishReason::kStop;
  return news;
}

const AnswerUsage kUsage = {.num_prompt_tokens = 10,
                            .num_cached_tokens = 4,
                            .num_output_tokens = 7,
                            .num_reasoning_tokens = std::nullopt,
                            .times = {}};

TEST(MessagesFormat, WordsAWholeAnswer) {
  const auto format = messages_format();
  format->begin({.id = "msg_1", .model = "m", .fingerprint = "f", .created = 1});
  EXPECT_EQ(sorted(format->whole({calling()}, kUsage)),
            nlohmann::json::parse(R"({"id":"msg_1","type":"message","role":"assistant",
      "model":"m","content":[{"type":"thinking","thinking":"Hm","signature":""},{"type":"text","text":"Let me look."},
      {"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}},
      {"type":"tool_use","id":"toolu_2","name":"g","input":{}}],"stop_reason":"tool_use","stop_sequence":null,
      "usage":{"input_tokens":6,"output_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":4}})"));
}

// "event: NAME" and its data, which repeats the name, one event each.
std::vector<Json> events_of(const std::string& stream) {
  std::vector<Json> events;
  for (size_t at = 0; at < stream.size();) {
    const size_t line = stream.find('\n', at), end = stream.find("\n\n", at);
    EXPECT_EQ(stream.substr(at, 7), "event: ");
    EXPECT_EQ(stream.substr(line + 1, 6), "data: ");
    events.push_back(Json::parse(stream.substr(line + 7, end - line - 7)));
    EXPECT_EQ(events.back()["type"], stream.substr(at + 7, line - at - 7));
    at = end + 2;
  }
  return events;
}

TEST(MessagesFormat, StreamsBlocks) {
  const auto format = messages_format();
  format->begin({.id = "msg_1", .model = "m", .fingerprint = "f", .created = 1});
  std::string stream;
  ChoiceNews first, second = calling();
  first.reasoning = "Oh. ";
  second.opens = false;
  format->write_news(first, kUsage, false, stream);
  format->write_news(second, kUsage, true, stream);
  format->write_end(kUsage, stream);
  EXPECT_EQ(sorted(events_of(stream)), nlohmann::json::parse(R"([
      {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],
        "stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":6,"output_tokens":0,
        "cache_creation_input_tokens":0,"cache_read_input_tokens":4}}},
      {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}},
      {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Oh. "}},
      {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}},
      {"type":"content_block_stop","index":0},
      {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}},
      {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Let me look."}},
      {"type":"content_block_stop","index":1},
      {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}},
      {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\": 1}"}},
      {"type":"content_block_stop","index":2},
      {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"g","input":{}}},
      {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{"}},
      {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"}"}},
      {"type":"content_block_stop","index":3},
      {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":6,
        "output_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":4}},
      {"type":"message_stop"}])"));
}

TEST(MessagesFormat, SaysWhyItEnds) {
  const auto end = [](FinishReason finish, const StopReason& stop) {
    ChoiceNews news;
    news.text = "a";
    news.finish_reason = finish;
    news.stop_reason = stop;
    const Json whole = messages_format()->whole({news}, kUsage);
    return std::pair(whole["stop_reason"], whole["stop_sequence"]);
  };
  EXPECT_EQ(end(FinishReason::kStop, {}), std::pair(Json("end_turn"), Json()));
  EXPECT_EQ(end(FinishReason::kStop, "x"), std::pair(Json("stop_sequence"), Json("x")));
  EXPECT_EQ(end(FinishReason::kLength, {}), std::pair(Json("max_tokens"), Json()));
}

TEST(MessagesFormat, WordsErrors) {
  std::string stream;
  messages_format()->write_error({503, "queue_full", "full"}, stream);
  EXPECT_EQ(sorted(events_of(stream).at(0)),
            nlohmann::json::parse(R"({"type":"error","error":{"type":"overloaded_error",
      "message":"full","param":null,"code":"queue_full"}})"));
}

}  // namespace
}  // namespace octet
