#include "octet/text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/json.h"
#include "octet/text/detokenizer.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

const std::string kGoldens = OCTET_SOURCE_DIR "/tests/golden/tokenizers/";
constexpr int64_t kMaxBytes = 1 << 22;

std::vector<std::string> families() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGoldens))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Family : public testing::TestWithParam<std::string> {
 protected:
  Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + GetParam());
  Json cases = read_json_file(kGoldens + GetParam() + "/cases.json", kMaxBytes);
};

TEST_P(Family, EncodesAsHuggingFaceDoes) {
  ASSERT_GT(cases["encode"].size(), 400u);
  for (const Json& row : cases["encode"]) {
    const auto text = row[0].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text, AddSpecialTokens::kYes), row[1].get<std::vector<int32_t>>()) << text;
  }
}

TEST_P(Family, DecodesAsHuggingFaceDoes) {
  ASSERT_GE(cases["decode"].size(), 120u);
  for (const Json& row : cases["decode"]) {
    const auto ids = row[0].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kKeep), row[1].get<std::string>()) << row[0].dump();
    EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kSkip), row[2].get<std::string>()) << row[0].dump();
  }
}

TEST_P(Family, StreamsWholeCharactersThatAddUpToTheRecordedText) {
  for (const Json& row : cases["decode"]) {
    Detokenizer stream(tokenizer, SpecialTokens::kKeep);
    std::string all;
    for (const int32_t id : row[0].get<std::vector<int32_t>>()) {
      const std::string piece = stream.push(id).value_or("");
      EXPECT_TRUE(utf8::is_valid(piece));
      all += piece;
    }
    EXPECT_EQ(all + stream.finish(), row[1].get<std::string>()) << row[0].dump();
  }
}

// A prompt in front changes no piece but the first, where it keeps the leading space.
TEST_P(Family, PromptTailThenStreamEqualsOneText) {
  const std::vector<int32_t> prompt = tokenizer.encode("the prompt:", AddSpecialTokens::kNo);
  const std::string before = tokenizer.decode(prompt, SpecialTokens::kKeep);
  for (const Json& row : cases["decode"]) {
    const auto ids = row[0].get<std::vector<int32_t>>();
    std::vector<int32_t> whole = prompt;
    whole.insert(whole.end(), ids.begin(), ids.end());
    Detokenizer stream(tokenizer, SpecialTokens::kKeep, prompt);
    std::string all = before;
    for (const int32_t id : ids) all += stream.push(id).value_or("");
    EXPECT_EQ(all + stream.finish(), tokenizer.decode(whole, SpecialTokens::kKeep)) << row[0].dump();
  }
}

// Oracle: the recorded ids of the whole text.
TEST_P(Family, SpansAreOneTextWhenAllAreTrusted) {
  for (const Json& row : cases["encode"]) {
    const auto text = row[0].get<std::string>();
    size_t middle = text.size() / 2;
    while (middle < text.size() && (static_cast<unsigned char>(text[middle]) & 0xC0) == 0x80) ++middle;
    const std::vector<TextSpan> spans = {{.text = text.substr(0, middle)}, {.text = text.substr(middle)}};
    EXPECT_EQ(tokenizer.encode_spans(spans, AddSpecialTokens::kYes), row[1].get<std::vector<int32_t>>()) << text;
  }
}

TEST_P(Family, UserTextNeverBecomesASpecialToken) {
  for (const Json& row : cases["encode"]) {
    const std::vector<TextSpan> spans = {{.text = row[0].get<std::string>(), .origin = TextOrigin::kUser}};
    for (const int32_t id : tokenizer.encode_spans(spans, AddSpecialTokens::kNo)) {
      // <unk> is special too, and stands for characters that the vocabulary lacks.
      EXPECT_TRUE(!tokenizer.is_special(id) || tokenizer.id_to_token(id) == "<unk>") << spans[0].text;
    }
  }
}

TEST_P(Family, ManyThreadsEncodeTheSame) {
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (const Json& row : cases["encode"]) {
        wrong[t] +=
            tokenizer.encode(row[0].get<std::string>(), AddSpecialTokens::kYes) != row[1].get<std::vector<int32_t>>();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Family, testing::ValuesIn(families()), [](const auto& p) { return p.param; });

TEST(Tokenizer, TrustedMarkersRoundUserTextAreFound) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + "qwen2");
  const int32_t start = *tokenizer.token_to_id("<|im_start|>");
  const int32_t end = *tokenizer.token_to_id("<|im_end|>");
  const std::vector<TextSpan> spans = {{.text = "<|im_start|>user\n"},
                                       {.text = "a<|im_end|>b<|im_start|>", .origin = TextOrigin::kUser},
                                       {.text = "<|im_end|>\n"}};
  const std::vector<int32_t> ids = tokenizer.encode_spans(spans, AddSpecialTokens::kNo);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), start), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 1);
  EXPECT_EQ(ids.front(), start);
  EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kKeep), "<|im_start|>user\na<|im_end|>b<|im_start|><|im_end|>\n");
}

// A marker that is half the user's is text.
TEST(Tokenizer, MarkerAcrossASpanOfTheUserIsText) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + "llama2");
  const std::vector<TextSpan> spans = {{.text = "<", .origin = TextOrigin::kUser}, {.text = "/s> </s>"}};
  const std::vector<int32_t> ids = tokenizer.encode_spans(spans, AddSpecialTokens::kNo);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), *tokenizer.token_to_id("</s>")), 1);
  EXPECT_EQ(ids.back(), *tokenizer.token_to_id("</s>"));
}

TEST(Tokenizer, InvalidBytesReadAsReplacementCharacters) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + "llama3");
  const auto ids = [&](std::string_view text) { return tokenizer.encode(text, AddSpecialTokens::kNo); };
  EXPECT_EQ(ids("a\xFFz\xE2\x96"), ids("a\uFFFDz\uFFFD"));
  EXPECT_EQ(ids("\xF0\x9F\x99 \xC0\xAF \xED\xA0\x80"), ids("\uFFFD \uFFFD\uFFFD \uFFFD\uFFFD\uFFFD"));
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreTheRequestsFault) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + "llama2");
  for (const int32_t id : {-1, tokenizer.vocab_size()}) {
    try {
      tokenizer.decode(std::vector<int32_t>{id}, SpecialTokens::kKeep);
      FAIL() << id;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalid);
    }
  }
}

TEST(Tokenizer, TokenBytesAreThoseOfTheMiddleOfAText) {
  const Tokenizer llama2 = Tokenizer::from_folder(kGoldens + "llama2");
  EXPECT_EQ(llama2.token_bytes(*llama2.token_to_id("<0xE2>")), "\xE2");
  EXPECT_EQ(llama2.token_bytes(*llama2.token_to_id("\u2581the")), " the");
  const Tokenizer qwen2 = Tokenizer::from_folder(kGoldens + "qwen2");
  EXPECT_EQ(qwen2.token_bytes(*qwen2.token_to_id("\u0120the")), " the");
  EXPECT_EQ(qwen2.token_bytes(*qwen2.token_to_id("<|im_end|>")), "<|im_end|>");
}

// One word of 200,000 characters: quadratic merging would take minutes.
TEST(Tokenizer, VeryLongWordsTakeNLogN) {
  for (const std::string family : {"llama2", "qwen2"}) {
    const Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + family);
    const std::string text(200'000, 'a');
    const std::vector<int32_t> ids = tokenizer.encode(text, AddSpecialTokens::kNo);
    EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kKeep), text);
  }
  const Tokenizer tokenizer = Tokenizer::from_folder(kGoldens + "qwen2");
  std::string marks = "a";
  for (int i = 0; i < 50'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";
  EXPECT_GT(tokenizer.encode(marks, AddSpecialTokens::kNo).size(), 1000u);
}

// --- damaged and unsupported files

void expect_model_error(const std::string& json, const std::string& part) {
  try {
    const Tokenizer tokenizer(json, "tokenizer.json");
    FAIL() << json;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModel) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

std::string with_model(const std::string& model) { return R"({"model":{"type":"BPE",)" + model + "}}"; }

std::string with_member(const std::string& member) {
  return R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)" + member + "}";
}

TEST(TokenizerFile, SmallestWorks) {
  const Tokenizer tokenizer(with_member(R"("decoder":{"type":"Fuse"})"), "tokenizer.json");
  EXPECT_EQ(tokenizer.encode("abba?", AddSpecialTokens::kYes), (std::vector<int32_t>{2, 1, 0}));
  EXPECT_EQ(tokenizer.vocab_size(), 3);
}

TEST(TokenizerFile, DamageIsNamed) {
  expect_model_error("", "not valid JSON");
  expect_model_error("[]", "expected an object");
  expect_model_error("{}", "model");
  expect_model_error(std::string(100'000, '['), "nested deeper");
  expect_model_error(with_model(R"("vocab":{"a":0,"b":0},"merges":[])"), "same id 0");
  expect_model_error(with_model(R"("vocab":{"a":16777216},"merges":[])"), "outside");
  expect_model_error(with_model(R"("vocab":{"a":-1},"merges":[])"), "outside");
  expect_model_error(with_model(R"("vocab":{"a":0},"merges":["a b"])"), "\"b\" is not in the vocabulary");
  expect_model_error(with_model(R"("vocab":{"a":0,"b":1},"merges":[["a","b"]])"), "\"ab\" is not in the vocabulary");
  expect_model_error(with_model(R"("vocab":{"a":0},"merges":["a"])"), "expected two tokens");
  expect_model_error(with_model(R"("vocab":{"a":0},"merges":[],"dropout":0.1)"), "dropout");
  expect_model_error(with_member(R"("added_tokens":[{"id":1,"content":"a"}])"), "the vocabulary says 0");
  expect_model_error(with_member(R"("added_tokens":[{"id":1,"content":"x"}])"), "same id 1");
  expect_model_error(with_member(R"("added_tokens":[{"id":5,"content":"x"},{"id":5,"content":"y"}])"), "same id 5");
}

TEST(TokenizerFile, UnsupportedTypesAreNamed) {
  expect_model_error(R"({"model":{"type":"Unigram","vocab":[]}})", "Unigram");
  expect_model_error(with_member(R"("normalizer":{"type":"BertNormalizer"})"), "BertNormalizer");
  expect_model_error(with_member(R"("pre_tokenizer":{"type":"UnicodeScripts"})"), "UnicodeScripts");
  expect_model_error(with_member(R"("post_processor":{"type":"RobertaProcessing"})"), "RobertaProcessing");
  expect_model_error(with_member(R"("decoder":{"type":"WordPiece"})"), "WordPiece");
  expect_model_error(
      with_member(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\p{Greek}"},"behavior":"Isolated"})"),
      "Greek");
  expect_model_error(with_member(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})"),
                     "regular expression");
}

}  // namespace
}  // namespace octet
