// Bodies of requests: what is read, and what is refused with which status, code and param.
#include <gtest/gtest.h>

#include "octet/server/chat_request.h"
#include "octet/server/completion_request.h"
#include "octet/server/json_body.h"

namespace octet {
namespace {

ModelFacts facts() {
  ModelFacts facts;
  facts.names = {"m", "alias"};
  facts.vocab_size = 100;
  facts.max_model_len = 50;
  facts.defaults.temperature = 0.7;
  return facts;
}

CompletionRequest completion(const std::string& body) { return read_completion(parse_body(body), facts()); }
ChatRequest chat(const std::string& body) { return read_chat(parse_body(body), facts()); }

TEST(CompletionRequest, TakesAllFourFormsOfPrompts) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(completion(R"({"prompt":"a"})").prompts, std::vector<PromptInput>{"a"});
  EXPECT_EQ(completion(R"({"prompt":["a","b"]})").prompts, (std::vector<PromptInput>{"a", "b"}));
  EXPECT_EQ(completion(R"({"prompt":[1,2]})").prompts, std::vector<PromptInput>{(Ids{1, 2})});
  EXPECT_EQ(completion(R"({"prompt":[[1],[2,3]]})").prompts, (std::vector<PromptInput>{Ids{1}, Ids{2, 3}}));
}

TEST(CompletionRequest, HasDefaults) {
  const GenerationRequest request = completion(R"({"prompt":"a"})").generation;
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.sampling.max_tokens, 16);
  EXPECT_EQ(request.sampling.temperature, 0.7);  // the model's
  EXPECT_FALSE(request.max_tokens_given);
  EXPECT_FALSE(request.stream);
  EXPECT_TRUE(request.add_special_tokens);
  EXPECT_FALSE(request.sampling.logprobs);
}

TEST(CompletionRequest, TakesEveryField) {
  const GenerationRequest request =
      completion(
          R"({"model":"alias","prompt":"a","max_tokens":5.0,"temperature":0.001,"top_p":0.5,"top_k":-1,"min_p":0.1,
        "n":2,"stop":"x","logit_bias":{"3":-200,"99":1},"logprobs":2,"echo":true,"seed":-5,"stream":true,
        "stream_options":{"include_usage":true},"stop_token_ids":[7],"ignore_eos":true,"min_tokens":2,
        "repetition_penalty":1.5,"presence_penalty":1,"frequency_penalty":-1,"skip_special_tokens":false,
        "include_stop_str_in_output":true,"allowed_token_ids":[1],"truncate_prompt_tokens":4,"cache_salt":"s",
        "return_token_ids":true,"best_of":2,"suffix":null,"tools":[],"user":"u","unheard_of":1})")
          .generation;
  const SamplingParams& sampling = request.sampling;
  EXPECT_EQ(request.model, "alias");
  EXPECT_EQ(sampling.max_tokens, 5);
  EXPECT_EQ(sampling.temperature, 0.01);  // raised
  EXPECT_EQ(sampling.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(sampling.logit_bias, (std::map<int32_t, float>{{3, -100.0f}, {99, 1.0f}}));  // clamped
  EXPECT_EQ(sampling.logprobs, 2);
  EXPECT_EQ(sampling.prompt_logprobs, 2);  // of echo
  EXPECT_EQ(sampling.seed, -5);
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(request.truncate_prompt_tokens, 4);
  EXPECT_EQ(request.cache_salt, "s");
}

TEST(ParseBody, ReadsHalvesOfSurrogatePairsAsReplacements) {
  EXPECT_EQ(parse_body(R"({"a":"x\ud83dy\ude00","b":"\ud83d\ude00","c":"\\ud83d"})"),
            (Json{{"a", "x\uFFFDy\uFFFD"}, {"b", "\U0001F600"}, {"c", "\\ud83d"}}));
}

struct Refused {
  std::string body;
  int status;
  std::string code;
  std::optional<std::string> param;
};

void expect_refused(const Refused& refused, const std::function<void(const std::string&)>& read) {
  try {
    read(refused.body);
    ADD_FAILURE() << "accepted: " << refused.body.substr(0, 200);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, refused.status) << refused.body.substr(0, 200) << ": " << error.what();
    EXPECT_EQ(error.code, refused.code) << refused.body.substr(0, 200) << ": " << error.what();
    EXPECT_EQ(error.param, refused.param) << refused.body.substr(0, 200) << ": " << error.what();
    EXPECT_LT(std::string(error.what()).size(), 1100u);
  }
}

std::string nested(int depth) { return R"({"prompt":)" + std::string(static_cast<size_t>(depth), '['); }

TEST(CompletionRequest, RefusesBodies) {
  const std::string parse = "json_parse_error";
  for (const Refused& refused : std::vector<Refused>{
           {"", 400, parse, {}},
           {"{", 400, parse, {}},
           {R"({"prompt":"a"}x)", 400, parse, {}},
           {R"({"prompt":"a","prompt":"b"})", 400, parse, {}},
           {R"({"prompt":"a","temperature":NaN})", 400, parse, {}},
           {R"({"prompt":"a","temperature":1e999})", 400, parse, {}},
           {"{\"prompt\":\"\xff\"}", 400, parse, {}},
           {"{\"prompt\":\"" + std::string(3000, 'x') + "\n\"}", 400, parse, {}},
           {nested(129), 400, parse, {}},
           {nested(100'000), 400, parse, {}},
           {"null", 400, "invalid_value", {}},
           {"[]", 400, "invalid_value", {}},
           {"\"x\"", 400, "invalid_value", {}},
       }) {
    expect_refused(refused, [](const std::string& body) { completion(body); });
  }
}

TEST(CompletionRequest, RefusesFields) {
  const std::string bad = "invalid_value";
  const auto with = [](const std::string& fields) { return R"({"prompt":"a",)" + fields + "}"; };
  const auto prompt = [](const std::string& value) { return R"({"prompt":)" + value + "}"; };
  for (const Refused& refused : std::vector<Refused>{
           {"{}", 400, "missing_required_parameter", "prompt"},
           {prompt("null"), 400, "missing_required_parameter", "prompt"},
           {prompt("\"\""), 400, bad, "prompt"},
           {prompt("[]"), 400, bad, "prompt"},
           {prompt("[[]]"), 400, bad, "prompt[0]"},
           {prompt("[-1]"), 400, bad, "prompt[0]"},
           {prompt("[2147483648]"), 400, bad, "prompt[0]"},
           {prompt("[100]"), 400, bad, "prompt[0]"},
           {prompt("[1,\"a\"]"), 400, bad, "prompt[1]"},
           {prompt("[\"a\",1]"), 400, bad, "prompt[1]"},
           {prompt("[[1],2]"), 400, bad, "prompt[1]"},
           {prompt("[[1],[2.5]]"), 400, bad, "prompt[1][0]"},
           {prompt("true"), 400, bad, "prompt"},
           {prompt("{}"), 400, bad, "prompt"},
           {with(R"("model":"x")"), 404, "model_not_found", "model"},
           {with(R"("model":7)"), 400, bad, "model"},
           {with(R"("temperature":3)"), 400, bad, "temperature"},
           {with(R"("temperature":"0.5")"), 400, bad, "temperature"},
           {with(R"("temperature":-0.1)"), 400, bad, "temperature"},
           {with(R"("top_p":0)"), 400, bad, "top_p"},
           {with(R"("top_k":-2)"), 400, bad, "top_k"},
           {with(R"("n":0)"), 400, bad, "n"},
           {with(R"("n":1000000000)"), 400, bad, "n"},
           {with(R"("n":true)"), 400, bad, "n"},
           {with(R"("n":1.5)"), 400, bad, "n"},
           {with(R"("n":2,"temperature":0)"), 400, bad, "n"},
           {with(R"("max_tokens":0)"), 400, bad, "max_tokens"},
           {with(R"("max_tokens":-1)"), 400, bad, "max_tokens"},
           {with(R"("max_tokens":2147483648)"), 400, bad, "max_tokens"},
           {with(R"("max_tokens":1,"min_tokens":2)"), 400, bad, "min_tokens"},
           {with(R"("stop":[""])"), 400, bad, "stop[0]"},
           {with(R"("stop":[1])"), 400, bad, "stop[0]"},
           {with("\"stop\":\"" + std::string(1 << 20, 'x') + "\""), 400, bad, "stop"},
           {with("\"stop\":[" + std::string(200, ' ') +
                 R"("a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"])"),
            400, bad, "stop"},
           {with(R"("logit_bias":{"x":1})"), 400, bad, "logit_bias.x"},
           {with(R"("logit_bias":{"100":1})"), 400, bad, "logit_bias.100"},
           {with(R"("logit_bias":{"-1":1})"), 400, bad, "logit_bias.-1"},
           {with(R"("logit_bias":{"1":"a"})"), 400, bad, "logit_bias.1"},
           {with(R"("logprobs":21)"), 400, bad, "logprobs"},
           {with(R"("logprobs":true)"), 400, bad, "logprobs"},
           {with(R"("seed":18446744073709551615)"), 400, bad, "seed"},
           {with(R"("stream":1)"), 400, bad, "stream"},
           {with(R"("stream_options":{})"), 400, bad, "stream_options"},
           {with(R"("stop_token_ids":[100])"), 400, bad, "stop_token_ids[0]"},
           {with(R"("allowed_token_ids":[])"), 400, bad, "allowed_token_ids"},
           {with(R"("priority":1)"), 400, bad, "priority"},
           {with(R"("cache_salt":"")"), 400, bad, "cache_salt"},
           {with(R"("suffix":"x")"), 400, "not_supported_error", "suffix"},
           {with(R"("best_of":3)"), 400, "not_supported_error", "best_of"},
           {with(R"("guided_json":7)"), 400, bad, "guided_json"},
           {with(R"("guided_json":"{")"), 400, bad, "guided_json"},
           {with(R"("guided_regex":"")"), 400, bad, "guided_regex"},
           {with(R"("guided_choice":["a",1])"), 400, bad, "guided_choice[1]"},
           {with(R"("guided_choice":[])"), 400, bad, "guided_choice"},
           {with(R"("structured_outputs":{})"), 400, bad, "structured_outputs"},
           {with(R"("structured_outputs":{"json":{},"regex":"a"})"), 400, bad, "structured_outputs.regex"},
           {with(R"("structured_outputs":{"json_object":1})"), 400, bad, "structured_outputs.json_object"},
           {with(R"("structured_outputs":{"json":{},"whitespace_pattern":"x"})"), 400, "not_supported_error",
            "structured_outputs.whitespace_pattern"},
           {with(R"("guided_json":{},"response_format":{"type":"json_object"})"), 400, bad, "guided_json"},
           {with(R"("response_format":{"type":"json_schema"})"), 400, bad, "response_format.json_schema"},
           {with(R"("response_format":{"type":"json_schema","json_schema":{"name":"x"}})"), 400, bad,
            "response_format.json_schema.schema"},
           {with(R"("response_format":{"type":"structural_tag","triggers":[]})"), 400, "not_supported_error",
            "response_format"},
           {with(R"("response_format":{})"), 400, bad, "response_format.type"},
           {with(R"("response_format":"json")"), 400, bad, "response_format"},
       }) {
    expect_refused(refused, [](const std::string& body) { completion(body); });
  }
}

TEST(CompletionRequest, BoundsPromptsAndSequences) {
  std::string many = R"({"n":2,"prompt":["a")";
  for (int i = 1; i < 600; ++i) many += ",\"a\"";
  expect_refused({many + "]}", 400, "invalid_value", "n"}, [](const std::string& body) { completion(body); });
  for (int i = 600; i < 1025; ++i) many += ",\"a\"";
  expect_refused({many + "]}", 400, "invalid_value", "prompt"}, [](const std::string& body) { completion(body); });
  std::string ids = "[0";
  for (int i = 1; i < 51; ++i) ids += ",0";
  expect_refused({R"({"prompt":)" + ids + "]}", 400, "context_length_exceeded", "prompt"},
                 [](const std::string& body) { completion(body); });
}

TEST(ChatRequest, TakesMessagesAndOptions) {
  const ChatRequest request = chat(
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{\"x\":1}"}}]},
          {"role":"tool","tool_call_id":"1","content":"r"},{"role":"developer","content":"d"},
          {"role":"assistant","content":"So"}],
          "continue_final_message":true,"add_generation_prompt":false,"max_tokens":3,"max_completion_tokens":7,
          "logprobs":true,"top_logprobs":2,"chat_template_kwargs":{"enable_thinking":false},"tool_choice":"none",
          "tools":[{"type":"function","function":{"name":"f"}}]})");
  EXPECT_FALSE(request.may_call_tools);  // nor does the template see them
  EXPECT_TRUE(request.options.tools.is_null());
  EXPECT_EQ(request.generation.sampling.max_tokens, 7);
  EXPECT_EQ(request.generation.sampling.logprobs, 2);
  EXPECT_TRUE(request.options.continue_final_message);
  EXPECT_FALSE(request.options.add_generation_prompt);
  EXPECT_EQ(request.options.template_kwargs, (Json{{"enable_thinking", false}}));
  const Json plain = plain_messages(request.messages);
  EXPECT_EQ(plain[0]["content"], "a\nb");
  EXPECT_EQ(plain[1]["content"], "");
  EXPECT_EQ(plain[1]["tool_calls"][0]["function"]["arguments"], (Json{{"x", 1}}));
  EXPECT_EQ(plain[3]["role"], "system");
  EXPECT_EQ(chat(R"({"messages":[{"role":"user","content":"x"}]})").generation.sampling.max_tokens, std::nullopt);
}

TEST(ChatRequest, TakesToolsWhereTheTemplateKnowsThem) {
  ModelFacts with_tools = facts();
  with_tools.tool_style = ToolStyle::kMistral;
  const std::string body =
      R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]})";
  const ChatRequest request = read_chat(parse_body(body), with_tools);
  EXPECT_TRUE(request.may_call_tools);
  EXPECT_EQ(request.options.tools[0]["function"]["name"], "f");
  EXPECT_FALSE(request.generation.sampling.skip_special_tokens);  // its marker is one
  expect_refused({body, 400, "not_supported_error", "tools"}, [](const std::string& text) { chat(text); });
}

TEST(ChatRequest, MakesGrammarsOfForcedCalls) {
  const auto body = [](const std::string& choice) {
    return R"({"messages":[{"role":"user","content":"x"}],"tool_choice":)" + choice +
           R"(,"tools":[{"function":{"name":"f"}},{"function":{"name":"g","parameters":{"type":"object"}}}]})";
  };
  const ChatRequest required = chat(body("\"required\""));  // with any template
  EXPECT_TRUE(required.must_call_tools);
  EXPECT_FALSE(required.calls_named_tool);
  EXPECT_EQ(required.options.tools.size(), 2u);
  EXPECT_EQ(required.generation.grammar_field, "tools");
  const Json list = Json::parse(required.generation.sampling.grammar->text)["format"];
  EXPECT_EQ(list["elements"][1]["tags"].size(), 2u);
  EXPECT_EQ(list["elements"][1]["stop_after_first"], false);
  const ChatRequest named = chat(body(R"({"type":"function","function":{"name":"g"}})"));
  EXPECT_TRUE(named.calls_named_tool);
  const Json one = Json::parse(named.generation.sampling.grammar->text)["format"]["elements"][1];
  EXPECT_EQ(one["tags"].size(), 1u);
  EXPECT_EQ(one["tags"][0]["begin"], R"({"name": "g", "arguments": )");
  EXPECT_EQ(one["stop_after_first"], true);
}

TEST(GrammarRequest, TakesEveryName) {
  using Kind = GrammarSpec::Kind;
  const auto spec = [](const std::string& field) {
    return *completion(R"({"prompt":"a",)" + field + "}").generation.sampling.grammar;
  };
  const std::string schema = R"({"type":"object","properties":{"b":{},"a":{}}})";  // whose order counts
  for (const std::string& field :
       {R"("guided_json":)" + schema, R"("json_schema":)" + schema, R"("guided_json":)" + Json(schema).dump(),
        R"("structured_outputs":{"json":)" + schema + "}",
        R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":)" + schema +
            "}}"}) {
    EXPECT_EQ(spec(field), (GrammarSpec{Kind::kJsonSchema, schema})) << field;
  }
  for (const std::string field :
       {R"("guided_regex":"a+")", R"("regex":"a+")", R"("structured_outputs":{"regex":"a+"})"}) {
    EXPECT_EQ(spec(field), (GrammarSpec{Kind::kRegex, "a+"})) << field;
  }
  for (const std::string field :
       {R"("guided_grammar":"root ::= \"a\"")", R"("ebnf":"root ::= \"a\"")", R"("grammar":"root ::= \"a\"")",
        R"("guided_choice":["a"])", R"("structured_outputs":{"choice":["a"]})"}) {
    EXPECT_EQ(spec(field), (GrammarSpec{Kind::kEbnf, "root ::= \"a\""})) << field;
  }
  for (const std::string field :
       {R"("response_format":{"type":"json_object"})", R"("structured_outputs":{"json_object":true})"}) {
    EXPECT_EQ(spec(field), (GrammarSpec{Kind::kJson, ""})) << field;
  }
  EXPECT_FALSE(completion(R"({"prompt":"a","response_format":{"type":"text"}})").generation.sampling.grammar);
}

TEST(ChatRequest, RefusesFields) {
  const std::string bad = "invalid_value", missing = "missing_required_parameter";
  const auto messages = [](const std::string& list) { return R"({"messages":)" + list + "}"; };
  const auto with = [](const std::string& fields) {
    return R"({"messages":[{"role":"user","content":"x"}],)" + fields + "}";
  };
  for (const Refused& refused : std::vector<Refused>{
           {"{}", 400, missing, "messages"},
           {messages("[]"), 400, bad, "messages"},
           {messages("{}"), 400, bad, "messages"},
           {messages("[1]"), 400, bad, "messages[0]"},
           {messages("[{}]"), 400, missing, "messages[0].role"},
           {messages(R"([{"role":"boss","content":"x"}])"), 400, bad, "messages[0].role"},
           {messages(R"([{"role":"user"}])"), 400, missing, "messages[0].content"},
           {messages(R"([{"role":"user","content":7}])"), 400, bad, "messages[0].content"},
           {messages(R"([{"role":"tool","content":"x"}])"), 400, missing, "messages[0].tool_call_id"},
           {messages(R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])"), 400,
            "not_supported_error", "messages[0].content[0]"},
           {messages(R"([{"role":"user","content":[{"text":"x"}]}])"), 400, bad, "messages[0].content[0].type"},
           {with(R"("top_logprobs":2)"), 400, bad, "top_logprobs"},
           {with(R"("top_logprobs":1000000,"logprobs":true)"), 400, bad, "top_logprobs"},
           {with(R"("continue_final_message":true)"), 400, bad, "continue_final_message"},
           {with(R"("chat_template":"{{ 1 }}")"), 400, "not_supported_error", "chat_template"},
           {with(R"("chat_template_kwargs":{"messages":[]})"), 400, bad, "chat_template_kwargs.messages"},
           {with(R"("tools":{})"), 400, bad, "tools"},
           {with(R"("tools":[{}])"), 400, bad, "tools[0].function"},
           {with(R"("tools":[{"function":{"name":"a b"}}])"), 400, bad, "tools[0].function.name"},
           {with(R"("tools":[{"function":{"name":"f","parameters":[]}}])"), 400, bad, "tools[0].function.parameters"},
           {with(R"("tool_choice":"required")"), 400, bad, "tool_choice"},
           {with(R"("tools":[{"function":{"name":"f"}}],"tool_choice":"always")"), 400, bad, "tool_choice"},
           {with(R"("tools":[{"function":{"name":"f"}}],"tool_choice":{"type":"function"})"), 400, bad,
            "tool_choice.function"},
           {with(R"("tools":[{"function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}})"),
            400, bad, "tool_choice.function.name"},
           {with(R"("tools":[{"function":{"name":"f"}}],"tool_choice":"required","guided_regex":"a")"), 400, bad,
            "tool_choice"},
           {with(R"("functions":[{}])"), 400, "not_supported_error", "functions"},
           {with(R"("audio":{"voice":"x"})"), 400, "not_supported_error", "audio"},
           {with(R"("modalities":["text","audio"])"), 400, "not_supported_error", "modalities"},
       }) {
    expect_refused(refused, [](const std::string& body) { chat(body); });
  }
  std::string many = "[";
  for (int i = 0; i < 10'001; ++i) many += std::string(i ? "," : "") + R"({"role":"user","content":"x"})";
  expect_refused({messages(many + "]"), 400, bad, "messages"}, [](const std::string& body) { chat(body); });
}

// Cut anywhere, a body is refused, never misread.
TEST(CompletionRequest, RefusesEveryBeginningOfABody) {
  const std::string body = R"({"prompt":["a\u00e9",""],"n":1,"logit_bias":{"1":-1.5e0}})";
  for (size_t length = 0; length < body.size(); ++length) {
    EXPECT_THROW(completion(body.substr(0, length)), ApiError) << length;
  }
}

TEST(ApiError, HasOneBodyAndEscapesLineEnds) {
  const ApiError error(404, "model_not_found", "no\u2028such", "model");
  EXPECT_EQ(
      dump_line(error.body()),
      R"({"error":{"message":"no\u2028such","type":"not_found_error","param":"model","code":"model_not_found"}})");
  const HttpResponse full = error_response({503, "queue_full", "x"});
  EXPECT_EQ(full.status, 503);
  EXPECT_NE(
      std::find(full.headers.begin(), full.headers.end(), std::pair<std::string, std::string>("Retry-After", "1")),
      full.headers.end());
}

}  // namespace
}  // namespace octet
