// Grammars by xgrammar. Nothing of that library is seen outside of this file.
#include "octet/sampling/grammar_builder.h"

#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <ctime>

#include "octet/base/error.h"
#include "octet/base/log.h"

namespace octet {
namespace {

// White space in a row that an answer may have where JSON allows any: models would fill pages with it.
constexpr int kMaxWhitespace = 8;

// Processor seconds that one token may take, where usual grammars take a thousandth of them. What takes longer is so
// ambiguous that each token takes a multiple of the one before, and nobody else gets a step meanwhile.
constexpr double kMaxTokenSeconds = 0.25;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Of all tokens, which may be part of an answer in JSON; null: any.
using TokenMask = std::shared_ptr<const std::vector<uint32_t>>;

// Tokens without control characters but line feeds. xgrammar's strings with a length allow the others raw, which JSON
// does not; between its parts spaces and line feeds are enough.
TokenMask make_json_tokens(const std::vector<std::string>& token_bytes) {
  std::vector<uint32_t> mask((token_bytes.size() + 31) / 32);
  for (size_t id = 0; id < token_bytes.size(); ++id) {
    const bool fits = std::none_of(token_bytes[id].begin(), token_bytes[id].end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; });
    if (fits) mask[id / 32] |= uint32_t{1} << (id % 32);
  }
  return std::make_shared<const std::vector<uint32_t>>(std::move(mask));
}

class XgrammarState final : public GrammarState {
 public:
  XgrammarState(const xgrammar::CompiledGrammar& grammar, int32_t vocab_size, TokenMask tokens)
      : matcher_(grammar), vocab_size_(vocab_size), tokens_(std::move(tokens)) {}

  void next_tokens(std::span<uint32_t> mask) override {
    OCTET_CHECK(static_cast<int64_t>(mask.size()) == (int64_t{vocab_size_} + 31) / 32);
    std::fill(mask.begin(), mask.end(), 0);
    if (failed_ || matcher_.IsTerminated()) return;
    int64_t shape = static_cast<int64_t>(mask.size());
    DLTensor tensor{.data = mask.data(),
                    .device = {kDLCPU, 0},
                    .ndim = 1,
                    .dtype = xgrammar::GetBitmaskDLType(),
                    .shape = &shape,
                    .strides = nullptr,
                    .byte_offset = 0};
    const double start = thread_seconds();
    try {
      if (!matcher_.FillNextTokenBitmask(&tensor)) std::fill(mask.begin(), mask.end(), ~0u);
    } catch (const std::exception& error) {
      give_up(error.what(), mask);
    }
    if (thread_seconds() - start > kMaxTokenSeconds) give_up("the grammar is too ambiguous", mask);
    for (size_t i = 0; tokens_ != nullptr && i < mask.size(); ++i) mask[i] &= (*tokens_)[i];
  }

  void accept(int32_t token_id) override {
    if (failed_) return;
    const double start = thread_seconds();
    try {
      failed_ = matcher_.IsTerminated() || !matcher_.AcceptToken(token_id);
    } catch (const std::exception& error) {
      give_up(error.what(), {});
    }
    if (thread_seconds() - start > kMaxTokenSeconds) give_up("the grammar is too ambiguous", {});
  }

 private:
  // This sequence ends with an error: nothing is allowed.
  void give_up(const char* why, std::span<uint32_t> mask) {
    log_line(LogLevel::kWarning, fmt::format("xgrammar failed while matching: {}", why));
    failed_ = true;
    std::fill(mask.begin(), mask.end(), 0);
  }

  xgrammar::GrammarMatcher matcher_;
  int32_t vocab_size_;
  TokenMask tokens_;
  bool failed_ = false;
};

class XgrammarGrammar final : public Grammar {
 public:
  XgrammarGrammar(xgrammar::CompiledGrammar grammar, int32_t vocab_size, TokenMask tokens)
      : grammar_(std::move(grammar)), vocab_size_(vocab_size), tokens_(std::move(tokens)) {}
  std::unique_ptr<GrammarState> start() const override {
    return std::make_unique<XgrammarState>(grammar_, vocab_size_, tokens_);
  }
  int64_t num_bytes() const override { return static_cast<int64_t>(grammar_.MemorySizeBytes()); }

 private:
  xgrammar::CompiledGrammar grammar_;
  int32_t vocab_size_;
  TokenMask tokens_;
};

class XgrammarBuilder final : public GrammarBuilder {
 public:
  explicit XgrammarBuilder(const GrammarVocabulary& vocabulary)
      : info_(vocabulary.token_bytes, xgrammar::VocabType::RAW, static_cast<int>(vocabulary.token_bytes.size()),
              vocabulary.eos_token_ids),
        vocab_size_(static_cast<int32_t>(vocabulary.token_bytes.size())),
        json_tokens_(make_json_tokens(vocabulary.token_bytes)) {}

  std::shared_ptr<const Grammar> build(const GrammarSpec& spec) const override {
    try {
      // A compiler of its own for each: its cache is not ours, and a failed one leaves nothing behind.
      xgrammar::GrammarCompiler compiler(info_, 1, false);
      const bool is_json = spec.kind == GrammarSpec::Kind::kJson || spec.kind == GrammarSpec::Kind::kJsonSchema;
      const auto grammar = std::make_shared<XgrammarGrammar>(compiler.CompileGrammar(parse(spec)), vocab_size_,
                                                             is_json ? json_tokens_ : nullptr);
      check_not_empty(*grammar);
      return grammar;
    } catch (const Error&) {
      throw;
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::kInvalid, "needs more memory than there is");
    } catch (const std::exception& error) {
      fail(ErrorCode::kInvalid, "{}", readable(error.what()));
    }
  }

 private:
  xgrammar::Grammar parse(const GrammarSpec& spec) const {
    using Kind = GrammarSpec::Kind;
    switch (spec.kind) {
      case Kind::kJson:
        return from_schema(R"({"type":"object"})", false);
      case Kind::kJsonSchema:
        return from_schema(spec.text, true);
      case Kind::kRegex:
        return xgrammar::Grammar::FromRegex(spec.text);
      case Kind::kEbnf:
        return xgrammar::Grammar::FromEBNF(spec.text);
      case Kind::kStructuralTag: {
        auto result = xgrammar::Grammar::FromStructuralTag(spec.text, info_);
        if (auto* grammar = std::get_if<xgrammar::Grammar>(&result)) return *grammar;
        std::visit([](const auto& error) { fail(ErrorCode::kInvalid, "{}", error.what()); },
                   std::get<xgrammar::StructuralTagError>(result));
      }
    }
    fail(ErrorCode::kInternal, "unknown kind of grammar");
  }

  // Rules that only lead to each other mean no text at all.
  void check_not_empty(const Grammar& grammar) const {
    std::vector<uint32_t> mask((static_cast<size_t>(vocab_size_) + 31) / 32);
    grammar.start()->next_tokens(mask);
    if (std::all_of(mask.begin(), mask.end(), [](uint32_t word) { return word == 0; })) {
      fail(ErrorCode::kInvalid, "no text of this model's tokens belongs to it");
    }
  }

  static xgrammar::Grammar from_schema(const std::string& schema, bool strict) {
    return xgrammar::Grammar::FromJSONSchema(schema, true, std::nullopt, std::nullopt, strict, kMaxWhitespace);
  }

  // Without what of xgrammar's texts is about its own code.
  static std::string readable(std::string text) {
    constexpr std::string_view kCheck = "Check failed: (", kFalse = ") is false: ";
    const size_t begin = text.find(kCheck), end = text.find(kFalse);
    if (begin != text.npos && end != text.npos) text.erase(begin, end + kFalse.size() - begin);
    return text.empty() ? "is not a grammar that xgrammar can read" : text;
  }

  xgrammar::TokenizerInfo info_;
  int32_t vocab_size_;
  TokenMask json_tokens_;
};

}  // namespace

std::shared_ptr<const GrammarBuilder> make_grammar_builder(const GrammarVocabulary& vocabulary) {
  if (vocabulary.eos_token_ids.empty()) {
    fail(ErrorCode::kInvalid, "structured output needs a model with an end-of-sequence token");
  }
  return std::make_shared<XgrammarBuilder>(vocabulary);
}

}  // namespace octet
