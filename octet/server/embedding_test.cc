// Bodies and answers of /v1/embeddings, in OpenAI's and vLLM's words.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/server/base64.h"
#include "octet/server/embedding_answer.h"
#include "octet/server/json_body.h"

namespace octet {
namespace {

ModelFacts facts() {
  ModelFacts facts;
  facts.names = {"m"};
  facts.vocab_size = 100;
  facts.max_model_len = 50;
  facts.embedding.size = 8;
  return facts;
}

EmbeddingRequest embedding(const std::string& body, const ModelFacts& model = facts()) {
  return read_embedding(parse_body(body), model);
}

TEST(EmbeddingRequest, TakesAllFourFormsOfInput) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(embedding(R"({"input":"a"})").texts.prompts, std::vector<PromptInput>{"a"});
  EXPECT_EQ(embedding(R"({"input":["a","b"]})").texts.prompts, (std::vector<PromptInput>{"a", "b"}));
  EXPECT_EQ(embedding(R"({"input":[1,2]})").texts.prompts, std::vector<PromptInput>{(Ids{1, 2})});
  EXPECT_EQ(embedding(R"({"input":[[1],[2,3]]})").texts.prompts, (std::vector<PromptInput>{Ids{1}, Ids{2, 3}}));
}

TEST(EmbeddingRequest, TakesEveryField) {
  const EmbeddingRequest given =
      embedding(R"({"input":"a","model":"m","encoding_format":"base64","dimensions":8,"user":"u","normalize":false,
                    "truncate_prompt_tokens":-1,"add_special_tokens":false,"cache_salt":"s","request_id":"r","priority":0,
                    "embed_dtype":"float32","endianness":"little","unheard_of":1})");
  EXPECT_EQ(given.encoding, EmbeddingRequest::Encoding::kBase64);
  EXPECT_EQ(given.dimensions, 0);  // all of them
  EXPECT_EQ(given.normalize, false);
  EXPECT_EQ(given.texts.generation.truncate_prompt_tokens, -1);
  EXPECT_FALSE(given.texts.generation.add_special_tokens);
  EXPECT_EQ(given.texts.generation.sampling.max_tokens, 0);
  EXPECT_EQ(given.texts.generation.request_id, "r");
  const EmbeddingRequest least = embedding(R"({"input":"a"})");
  EXPECT_EQ(least.encoding, EmbeddingRequest::Encoding::kFloat);
  EXPECT_TRUE(least.texts.generation.add_special_tokens && !least.normalize);
}

TEST(EmbeddingRequest, CutsOnlyWhatWasTrainedForIt) {
  ModelFacts model = facts();
  model.embedding.is_matryoshka = true;
  EXPECT_EQ(embedding(R"({"input":"a","dimensions":3})", model).dimensions, 3);
  EXPECT_THROW(embedding(R"({"input":"a","dimensions":9})", model), ApiError);
  model.embedding.matryoshka_dimensions = {2, 4};
  EXPECT_EQ(embedding(R"({"input":"a","dimensions":4})", model).dimensions, 4);
  EXPECT_THROW(embedding(R"({"input":"a","dimensions":3})", model), ApiError);
}

TEST(EmbeddingRequest, RefusesFields) {
  const std::string bad = "invalid_value", unknown = "not_supported_error";
  struct Refused {
    std::string body, code, param;
  };
  for (const Refused& refused : std::vector<Refused>{
           {R"({})", "missing_required_parameter", "input"},
           {R"({"input":""})", bad, "input"},
           {R"({"input":[]})", bad, "input"},
           {R"({"input":["a",""]})", bad, "input[1]"},
           {R"({"input":[100]})", bad, "input[0]"},
           {R"({"input":{"a":1}})", bad, "input"},
           {R"({"input":"a","model":"x"})", "model_not_found", "model"},
           {R"({"input":"a","encoding_format":"hex"})", bad, "encoding_format"},
           {R"({"input":"a","encoding_format":"bytes"})", unknown, "encoding_format"},
           {R"({"input":"a","dimensions":4})", unknown, "dimensions"},
           {R"({"input":"a","dimensions":0})", bad, "dimensions"},
           {R"({"input":"a","truncate_prompt_tokens":51})", bad, "truncate_prompt_tokens"},
           {R"({"input":"a","truncate_prompt_tokens":0})", bad, "truncate_prompt_tokens"},
           {R"({"input":"a","normalize":"yes"})", bad, "normalize"},
           {R"({"input":"a","embed_dtype":"float16"})", unknown, "embed_dtype"},
           {R"({"input":"a","messages":[{"role":"user","content":"x"}]})", unknown, "messages"},
       }) {
    try {
      embedding(refused.body);
      ADD_FAILURE() << refused.body;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.code, refused.code) << refused.body;
      EXPECT_EQ(error.param, refused.param) << refused.body;
    }
  }
}

// RFC 4648, section 10.
TEST(Base64, IsThatOfTheRfc) {
  const auto encoded = [](std::string_view text) { return base64(std::as_bytes(std::span(text))); };
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foo"), "Zm9v");
  EXPECT_EQ(encoded("foob"), "Zm9vYg==");
  EXPECT_EQ(encoded("fooba"), "Zm9vYmE=");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encoded("\xFB\xFF"), "+/8=");
}

Json answer(EmbeddingRequest::Encoding encoding, std::vector<float> pooled, FinishReason reason) {
  const auto format = embedding_format({.encoding = encoding, .dimensions = 2, .normalize = true});
  format->begin({.id = format->id_prefix() + "1", .model = "m", .fingerprint = "", .created = 7});
  ChoiceNews news;
  news.pooled = std::move(pooled);
  news.finish_reason = reason;
  return format->whole({news}, {.num_prompt_tokens = 5, .num_cached_tokens = 4, .times = {}});
}

TEST(EmbeddingAnswer, IsOpenAis) {
  const Json list = answer(EmbeddingRequest::Encoding::kFloat, {0, 2, 9}, FinishReason::kLength);
  EXPECT_EQ(nlohmann::json::parse(list.dump()), nlohmann::json::parse(R"({"id":"embd-1","object":"list","created":7,
      "model":"m","data":[{"object":"embedding","index":0,"embedding":[0.0,1.0]}],"usage":{"prompt_tokens":5,
      "total_tokens":5,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":4}}})"));
  const Json text = answer(EmbeddingRequest::Encoding::kBase64, {0, 2, 9}, FinishReason::kLength);
  EXPECT_EQ(text["data"][0]["embedding"], "AAAAAAAAgD8=");  // 00000000 0000803f
}

TEST(EmbeddingAnswer, IsAnErrorWhereThereIsNoVector) {
  constexpr auto kFloat = EmbeddingRequest::Encoding::kFloat;
  EXPECT_THROW(answer(kFloat, {}, FinishReason::kAbort), ApiError);
  EXPECT_THROW(answer(kFloat, {NAN, 1}, FinishReason::kLength), ApiError);
}

}  // namespace
}  // namespace octet
