// Grammars over a vocabulary of a few tokens, whose masks are worked out by hand; the compiler's cache and limits with
// a builder made for it.
#include "octet/sampling/grammar.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "octet/base/error.h"
#include "octet/sampling/grammar_compiler.h"
#include "octet/sampling/grammar_limits.h"
#include "octet/sampling/row_ops.h"
#include "octet/sampling/sampler.h"

namespace octet {
namespace {

using Kind = GrammarSpec::Kind;

// 0 "a", 1 "b", 2 "ab", 3 "{", 4 "}", 5 a half of "é", 6 its other half, 7 nothing (special), 8 the end, then fillers.
GrammarVocabulary vocabulary() {
  GrammarVocabulary vocabulary;
  vocabulary.token_bytes = {"a", "b", "ab", "{", "}", "\xC3", "\xA9", "", ""};
  vocabulary.token_bytes.resize(40, "z");
  vocabulary.eos_token_ids = {8};
  return vocabulary;
}

std::vector<int32_t> allowed(GrammarState& state) {
  std::vector<uint32_t> mask(2);
  state.next_tokens(mask);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < 40; ++id) {
    if (mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) ids.push_back(id);
  }
  return ids;
}

class GrammarTest : public testing::Test {
 protected:
  void SetUp() override {
    try {
      builder_ = make_grammar_builder(vocabulary());
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }
  std::shared_ptr<const GrammarBuilder> builder_;
};

using Ids = std::vector<int32_t>;

TEST_F(GrammarTest, MasksByBytesAndEndsOnlyWhereTheLanguageDoes) {
  const auto grammar = builder_->build({Kind::kRegex, "a?(ab|é)"});
  const auto state = grammar->start();
  EXPECT_EQ(allowed(*state), (Ids{0, 2, 5}));
  state->accept(0);
  EXPECT_EQ(allowed(*state), (Ids{0, 1, 2, 5}));  // "a" may be the optional one or the first of "ab"
  state->accept(5);
  EXPECT_EQ(allowed(*state), (Ids{6}));
  state->accept(6);
  EXPECT_EQ(allowed(*state), (Ids{8}));
  state->accept(8);
  EXPECT_EQ(allowed(*state), (Ids{}));  // nothing follows the end
}

// JSON has no raw control characters in strings.
TEST_F(GrammarTest, StringsWithALengthHaveNoControlCharacters) {
  GrammarVocabulary vocabulary;
  vocabulary.token_bytes = {"\"", "a", "\t", "a\x01", "\n", "\x7f", ""};
  vocabulary.token_bytes.resize(40, "abcd");
  vocabulary.eos_token_ids = {6};
  const auto builder = make_grammar_builder(vocabulary);
  for (const char* schema :
       {R"({"type":"string","maxLength":3})", R"({"type":"string","minLength":0,"maxLength":2})"}) {
    const auto state = builder->build({Kind::kJsonSchema, schema})->start();
    state->accept(0);
    EXPECT_EQ(allowed(*state), (Ids{0, 1, 5})) << schema;
  }
}

TEST_F(GrammarTest, ATokenThatIsNotAllowedLeavesNothing) {
  const auto state = builder_->build({Kind::kRegex, "ab"})->start();
  state->accept(1);
  EXPECT_EQ(allowed(*state), (Ids{}));
}

TEST_F(GrammarTest, ChoicesAreExactlyThese) {
  const auto grammar = builder_->build(choice_grammar(std::vector<std::string>{"ab", "{\"\\\n}"}));
  const auto state = grammar->start();
  EXPECT_EQ(allowed(*state), (Ids{0, 2, 3}));
  const auto other = grammar->start();  // states are independent
  state->accept(2);
  EXPECT_EQ(allowed(*state), (Ids{8}));
  EXPECT_EQ(allowed(*other), (Ids{0, 2, 3}));
}

TEST_F(GrammarTest, SaysWhatIsWrong) {
  for (const GrammarSpec& spec : std::vector<GrammarSpec>{{Kind::kRegex, "("},
                                                          {Kind::kEbnf, "root ::="},
                                                          {Kind::kEbnf, "root ::= root"},
                                                          {Kind::kEbnf, "root ::= missing"},
                                                          {Kind::kJsonSchema, R"({"type":"nonsense"})"},
                                                          {Kind::kJsonSchema, R"({"$ref":"#/nowhere"})"},
                                                          {Kind::kStructuralTag, R"({"type":"structural_tag"})"}}) {
    try {
      builder_->build(spec);
      ADD_FAILURE() << spec.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalid) << spec.text;
      EXPECT_NE(std::string(error.what()), "") << spec.text;
    }
  }
}

TEST_F(GrammarTest, SamplingFollowsItWhateverTheLogitsSay) {
  const auto grammar = builder_->build({Kind::kRegex, "ab?b"});
  SamplingParams params{.temperature = 0.0, .min_tokens = 9};
  const std::vector<int32_t> eos = {8};
  SamplingState state({.params = params,
                       .eos_token_ids = eos,
                       .grammar = grammar.get(),
                       .prompt_token_ids = {},
                       .seed = 0,
                       .index = 0});
  EXPECT_FALSE(state.needs_only_a_draw());
  SamplingScratch scratch;
  Ids ids;
  for (int64_t position = 0; position < 4; ++position) {
    std::vector<float> row(40, 0.0f);
    row[39] = 9.0f;
    row[1] = 5.0f;
    row[8] = 4.0f;
    const Sampled sampled = sample(row, state, position, scratch);
    ASSERT_EQ(sampled.outcome, SampleOutcome::kToken) << position;
    ids.push_back(sampled.token_id);
  }
  // min_tokens hold the end back as long as the grammar knows anything else.
  EXPECT_EQ(ids.front() == 0 || ids.front() == 2, true);
  EXPECT_EQ(ids.back(), 8);
}

class FakeGrammar final : public Grammar {
 public:
  std::unique_ptr<GrammarState> start() const override { return nullptr; }
  int64_t num_bytes() const override { return 1000; }
};

// Builds at once, but for "slow", which waits for its turn.
class FakeBuilder final : public GrammarBuilder {
 public:
  std::shared_ptr<const Grammar> build(const GrammarSpec& spec) const override {
    ++num_built;
    if (spec.text.starts_with("slow")) release.wait();
    if (spec.text == "bad") fail(ErrorCode::kInvalid, "bad it is");
    return std::make_shared<FakeGrammar>();
  }
  mutable std::atomic<int> num_built{0};
  std::shared_future<void> release;
};

GrammarSpec regex(const std::string& text) { return {Kind::kRegex, text}; }

std::string error_of(GrammarCompiler& compiler, const GrammarSpec& spec) {
  try {
    compiler.compile(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalid);
    return error.what();
  }
  return "";
}

TEST(GrammarCompiler, BuildsOnceAndForgetsWhatIsOldest) {
  const auto builder = std::make_shared<FakeBuilder>();
  GrammarCompiler compiler(builder, {.max_cached_bytes = 5000});
  const auto first = compiler.compile(regex("a"));
  EXPECT_EQ(compiler.compile(regex("a")), first);
  EXPECT_EQ(builder->num_built, 1);
  EXPECT_EQ(error_of(compiler, regex("bad")), "bad it is");
  EXPECT_EQ(error_of(compiler, regex("bad")), "bad it is");
  EXPECT_EQ(builder->num_built, 2);
  for (int i = 0; i < 20; ++i) compiler.compile(regex("x" + std::to_string(i)));
  EXPECT_LE(compiler.cached_bytes(), 5000);
  EXPECT_NE(compiler.compile(regex("a")), first);
}

TEST(GrammarCompiler, GivesUpWhatTakesTooLong) {
  std::promise<void> release;
  const auto builder = std::make_shared<FakeBuilder>();
  builder->release = release.get_future().share();
  GrammarCompiler compiler(builder, {.time_limit = std::chrono::milliseconds(50), .max_running = 2});
  EXPECT_NE(error_of(compiler, regex("slow1")).find("too complex"), std::string::npos);
  EXPECT_NE(error_of(compiler, regex("slow1")).find("too complex"), std::string::npos);  // is not begun again
  EXPECT_NE(error_of(compiler, regex("slow2")).find("too complex"), std::string::npos);
  EXPECT_EQ(builder->num_built, 2);
  EXPECT_NE(error_of(compiler, regex("a")).find("busy"), std::string::npos);
  release.set_value();
  while (error_of(compiler, regex("slow1")) != "") {  // was built after all
  }
  EXPECT_EQ(builder->num_built, 2);
  EXPECT_NE(compiler.compile(regex("a")), nullptr);
}

TEST(CheckGrammar, RefusesWhatIsTooMuchAndWhatWouldBeLeftOut) {
  const std::string deep(200, '(');
  std::string schema = "{}";
  for (int i = 0; i < 100; ++i) schema = R"({"items":)" + schema + "}";
  for (const GrammarSpec& spec : std::vector<GrammarSpec>{
           {Kind::kRegex, deep},
           {Kind::kRegex, std::string(9000, 'a')},
           {Kind::kRegex, "a{9000}"},
           {Kind::kRegex, "((a{100}){100}){100}"},
           {Kind::kRegex, "(?=a)b"},
           {Kind::kRegex, R"(\bword)"},
           {Kind::kRegex, R"((a)\1)"},
           {Kind::kEbnf, "root ::= " + deep},
           {Kind::kEbnf, R"(root ::= "a"{1,100000})"},
           {Kind::kJsonSchema, "{"},
           {Kind::kJsonSchema, "[]"},
           {Kind::kJsonSchema, schema},
           {Kind::kJsonSchema, R"({"not":{}})"},
           {Kind::kJsonSchema, R"({"properties":{"x":{"uniqueItems":true}}})"},
           {Kind::kJsonSchema, R"({"allOf":[{},{}]})"},
           {Kind::kJsonSchema, R"x({"pattern":"(?=a)"})x"},
           {Kind::kJsonSchema, R"({"maxLength":1000000})"},
           {Kind::kJsonSchema, R"({"minItems":-1})"},
           {Kind::kJsonSchema, R"({"type":"number","multipleOf":3})"},
           {Kind::kJsonSchema, R"({"$ref":"http://elsewhere"})"},
           {Kind::kStructuralTag, R"({"format":{"type":"json_schema","json_schema":{"not":{}}}})"},
           {Kind::kStructuralTag, R"({"format":{"type":"regex","pattern":"a{9999}"}})"},
       }) {
    EXPECT_THROW(check_grammar(spec), Error) << spec.text.substr(0, 100);
  }
  for (const GrammarSpec& spec : std::vector<GrammarSpec>{
           {Kind::kRegex, R"([a-z(]{1,64}\(\d{4}(?:x|y)\)*)"},
           {Kind::kEbnf, "root ::= \"((((\" [(] # ((("},
           {Kind::kJsonSchema,
            R"({"properties":{"not":{"type":"string","maxLength":100},"if":{}},"required":["not"]})"},
           {Kind::kJsonSchema, R"({"enum":[{"not":1}],"default":{"if":2},"multipleOf":2,"type":"integer"})"},
           {Kind::kJsonSchema, "true"},
       }) {
    EXPECT_NO_THROW(check_grammar(spec)) << spec.text;
  }
}

}  // namespace
}  // namespace octet
