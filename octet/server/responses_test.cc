// OpenAI's responses: bodies as the chat requests that they mean, answers and events as its documentation shows them.
#include <gtest/gtest.h>

#include "octet/server/json_body.h"
#include "octet/server/responses_answer.h"
#include "octet/server/responses_request.h"

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

ResponsesRequest responses(const std::string& body) { return read_responses_request(parse_body(body), facts()); }

TEST(ResponsesRequest, MeansAChatRequest) {
  const ResponsesRequest request = responses(R"({"model":"m","max_output_tokens":9,"temperature":0.5,"stream":true,
      "instructions":"Be brief.","top_logprobs":2,"truncation":"auto","reasoning":{"effort":"none"},
      "input":[{"role":"user","content":"a"},
        {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"?"},
        {"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{\"k\":1}","status":"completed"},
        {"type":"function_call","call_id":"c2","name":"g","arguments":"{}"},
        {"type":"function_call_output","call_id":"c1","output":"one"},
        {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"two"}]},
        {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"so"}]},
        {"type":"message","role":"assistant","content":[{"type":"output_text","text":"b","annotations":[]}]},
        {"type":"message","role":"assistant","content":"c"},
        {"role":"user","content":[{"type":"input_text","text":"d"},{"type":"input_text","text":"e"}]}]})");
  EXPECT_EQ(sorted(plain_messages(request.chat.messages)), nlohmann::json::parse(R"([
      {"role":"system","content":"Be brief."},
      {"role":"user","content":"a"},
      {"role":"assistant","content":"","reasoning_content":"hm","tool_calls":[
        {"id":"c1","type":"function","function":{"name":"f","arguments":{"k":1}}},
        {"id":"c2","type":"function","function":{"name":"g","arguments":{}}}]},
      {"role":"tool","tool_call_id":"c1","content":"one"},
      {"role":"tool","tool_call_id":"c2","content":"two"},
      {"role":"assistant","content":"b","reasoning_content":"so"},
      {"role":"assistant","content":"c"},
      {"role":"user","content":"d\ne"}])"));
  const GenerationRequest& generation = request.chat.generation;
  EXPECT_EQ(generation.sampling.max_tokens, 9);
  EXPECT_EQ(generation.sampling.logprobs, 2);
  EXPECT_EQ(generation.truncate_prompt_tokens, -1);
  EXPECT_TRUE(generation.stream);
  EXPECT_EQ(request.chat.options.template_kwargs["enable_thinking"], false);
}

TEST(ResponsesRequest, TakesToolsAndForms) {
  const std::string tools = R"("tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true},
                                         {"type":"function","name":"g"}])";
  const auto with = [](const std::string& fields) { return responses(R"({"input":"x",)" + fields + "}"); };
  const ResponsesRequest any = with(tools);
  EXPECT_TRUE(any.chat.may_call_tools);
  EXPECT_EQ(sorted(any.chat.options.tools[0]), nlohmann::json::parse(R"({"type":"function","function":
      {"name":"f","parameters":{"type":"object"},"strict":true}})"));
  EXPECT_EQ(any.echo["tools"][0]["name"], "f");
  EXPECT_TRUE(with(tools + R"(,"tool_choice":"required")").chat.must_call_tools);
  EXPECT_TRUE(with(tools + R"(,"tool_choice":{"type":"function","name":"g"})").chat.calls_named_tool);
  EXPECT_FALSE(with(tools + R"(,"tool_choice":"none")").chat.may_call_tools);
  const ResponsesRequest form =
      with(R"("text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}})");
  EXPECT_EQ(form.chat.generation.sampling.grammar->kind, GrammarSpec::Kind::kJsonSchema);
  EXPECT_EQ(form.chat.generation.grammar_field, "text.format.schema");
}

TEST(ResponsesRequest, RefusesFieldsUnderTheirOwnNames) {
  const std::string bad = "invalid_value", missing = "missing_required_parameter", unknown = "not_supported_error";
  struct Refused {
    std::string body, code, param;
  };
  const auto with = [](const std::string& fields) { return R"({"input":"x",)" + fields + "}"; };
  for (const Refused& refused : std::vector<Refused>{
           {"{}", missing, "input"},
           {R"({"input":7})", bad, "input"},
           {R"({"input":[]})", bad, "input"},
           {R"({"input":[{"type":"reasoning","summary":[]}]})", bad, "input"},
           {R"({"input":[1]})", bad, "input[0]"},
           {R"({"input":[{"role":"robot","content":"x"}]})", bad, "input[0].role"},
           {R"({"input":[{"role":"user"}]})", missing, "input[0].content"},
           {R"({"input":[{"role":"user","content":[{"type":"input_file"}]}]})", unknown, "input[0].content[0]"},
           {R"({"input":[{"type":"function_call","name":"f","arguments":"{}"}]})", missing, "input[0].call_id"},
           {R"({"input":[{"type":"function_call_output","call_id":"c"}]})", missing, "input[0].output"},
           {R"({"input":[{"type":"web_search_call"}]})", unknown, "input[0]"},
           {with(R"("max_output_tokens":0)"), bad, "max_output_tokens"},
           {with(R"("previous_response_id":"r")"), unknown, "previous_response_id"},
           {with(R"("conversation":"c")"), unknown, "conversation"},
           {with(R"("background":true)"), unknown, "background"},
           {with(R"("metadata":{"a":1})"), bad, "metadata.a"},
           {with(R"("truncation":"some")"), bad, "truncation"},
           {with(R"("include":["file_search_call.results"])"), unknown, "include[0]"},
           {with(R"("tools":[{"type":"mcp"}])"), unknown, "tools[0].type"},
           {with(R"("tools":[{"type":"function","name":"a b"}])"), bad, "tools[0].name"},
           {with(R"("tool_choice":"required")"), bad, "tool_choice"},
           {with(R"("text":{"format":{"type":"json_schema","name":"n"}})"), missing, "text.format.schema"},
           {with(R"("text":{"format":{"type":"xml"}})"), bad, "text.format.type"},
       }) {
    try {
      responses(refused.body);
      ADD_FAILURE() << refused.body;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.code, refused.code) << refused.body;
      EXPECT_EQ(error.param, refused.param) << refused.body;
    }
  }
}

struct Event {
  std::string type;
  nlohmann::json data;
};

std::vector<Event> events_of(const std::string& stream) {
  std::vector<Event> events;
  for (size_t at = 0; at < stream.size();) {
    const size_t line = stream.find('\n', at), end = stream.find("\n\n", at);
    const size_t data = line + 1 + std::string("data: ").size();
    events.push_back({stream.substr(at + 7, line - at - 7), nlohmann::json::parse(stream.substr(data, end - data))});
    EXPECT_EQ(events.back().type, events.back().data["type"]);
    EXPECT_EQ(events.back().data["sequence_number"], events.size() - 1);
    at = end + 2;
  }
  return events;
}

ChoiceNews news_of(const std::string& reasoning, const std::string& text, std::vector<ToolCall> calls,
                   FinishReason end) {
  ChoiceNews news;
  news.reasoning = reasoning;
  news.text = text;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!calls[i].continues) news.call_ids.push_back("id" + std::to_string(i));
  }
  news.calls = std::move(calls);
  news.finish_reason = end;
  return news;
}

std::unique_ptr<AnswerFormat> begun() {
  auto format = responses_format({{"store", false}}, {});
  format->begin({.id = format->id_prefix() + "1", .model = "m", .fingerprint = "", .created = 7});
  return format;
}

const AnswerUsage kUsage{
    .num_prompt_tokens = 5, .num_cached_tokens = 2, .num_output_tokens = 4, .num_reasoning_tokens = 1, .times = {}};

TEST(ResponsesAnswer, StreamsItemsOneAfterTheOther) {
  const auto format = begun();
  std::string stream;
  ChoiceNews first = news_of("hm", "", {}, FinishReason::kNone);
  ChoiceNews second = news_of("", "a", {}, FinishReason::kNone);
  ChoiceNews third =
      news_of("", "b", {{.name = "f", .arguments = "{"}, {.name = "", .arguments = "}", .continues = true}},
              FinishReason::kStop);
  second.opens = third.opens = false;
  for (ChoiceNews* news : {&first, &second, &third}) format->write_news(*news, kUsage, news == &third, stream);
  format->write_end(kUsage, stream);
  const std::vector<Event> events = events_of(stream);
  std::vector<std::string> types;
  for (const Event& event : events) types.push_back(event.type.substr(std::string("response.").size()));
  EXPECT_EQ(types, (std::vector<std::string>{"created",
                                             "in_progress",
                                             "output_item.added",
                                             "content_part.added",
                                             "reasoning_text.delta",
                                             "reasoning_text.done",
                                             "content_part.done",
                                             "output_item.done",
                                             "output_item.added",
                                             "content_part.added",
                                             "output_text.delta",
                                             "output_text.delta",
                                             "output_text.done",
                                             "content_part.done",
                                             "output_item.done",
                                             "output_item.added",
                                             "function_call_arguments.delta",
                                             "function_call_arguments.delta",
                                             "function_call_arguments.done",
                                             "output_item.done",
                                             "completed"}));
  EXPECT_EQ(events[9].data, nlohmann::json::parse(R"({"type":"response.content_part.added","sequence_number":9,
      "item_id":"msg_1_1","output_index":1,"content_index":0,
      "part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}})"));
  EXPECT_EQ(events[18].data, nlohmann::json::parse(R"({"type":"response.function_call_arguments.done",
      "sequence_number":18,"item_id":"fc_1_2","output_index":2,"name":"f","arguments":"{}"})"));
  // The whole answer to the same is the response of the last event.
  const auto again = begun();
  const Json whole = again->whole(
      {news_of("hm", "ab", {{.name = "f", .arguments = "{"}, {.name = "", .arguments = "}", .continues = true}},
               FinishReason::kStop)},
      kUsage);
  EXPECT_EQ(sorted(whole), events.back().data["response"]);
  EXPECT_EQ(sorted(whole), nlohmann::json::parse(R"({"id":"resp_1","object":"response","created_at":7,
      "status":"completed","error":null,"incomplete_details":null,"model":"m","store":false,
      "output":[{"id":"rs_1_0","type":"reasoning","status":"completed","summary":[],
          "content":[{"type":"reasoning_text","text":"hm"}]},
        {"id":"msg_1_1","type":"message","role":"assistant","status":"completed",
          "content":[{"type":"output_text","text":"ab","annotations":[],"logprobs":[]}]},
        {"id":"fc_1_2","type":"function_call","status":"completed","call_id":"call_id0","name":"f","arguments":"{}"}],
      "usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":0},"output_tokens":4,
        "output_tokens_details":{"reasoning_tokens":1},"total_tokens":9}})"));
}

TEST(ResponsesAnswer, SaysWhatCutItOff) {
  const Json cut = begun()->whole({news_of("", "a", {}, FinishReason::kLength)}, kUsage);
  EXPECT_EQ(cut["status"], "incomplete");
  EXPECT_EQ(cut["output"][0]["status"], "incomplete");
  EXPECT_EQ(cut["incomplete_details"]["reason"], "max_output_tokens");
  const Json aborted = begun()->whole({news_of("", "", {}, FinishReason::kAbort)}, kUsage);
  EXPECT_EQ(aborted["status"], "incomplete");
  EXPECT_TRUE(aborted["incomplete_details"].is_null() && aborted["output"].empty());
  std::string stream;
  begun()->write_error({500, "generation_failed", "no luck"}, stream);
  const std::vector<Event> events = events_of(stream);
  EXPECT_EQ(events[0].type, "response.failed");
  EXPECT_EQ(events[0].data["response"]["error"]["message"], "no luck");
}

}  // namespace
}  // namespace octet
