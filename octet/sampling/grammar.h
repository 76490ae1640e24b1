// Grammar: a language that an answer must belong to, compiled for a vocabulary; GrammarState: how far one sequence has
// come in it. Tokens are known by their bytes alone; where those come from is above.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace octet {

// A language as it was asked for. Equal specs are the same language.
struct GrammarSpec {
  // kJson: any JSON object. kJsonSchema: JSON that `text`, a schema, allows. kRegex: the whole answer matches. kEbnf:
  // rules as GBNF writes them, the first of which is "root". kStructuralTag: xgrammar's composition of the others.
  enum class Kind : uint8_t { kJson, kJsonSchema, kRegex, kEbnf, kStructuralTag } kind = Kind::kJson;
  std::string text;
  auto operator<=>(const GrammarSpec&) const = default;
};

struct GrammarVocabulary {
  // By token id; empty for tokens that are no text: special ones, and ids that the tokenizer does not have.
  std::vector<std::string> token_bytes;
  std::vector<int32_t> eos_token_ids;  // any of them ends an answer, where the language allows an end
};

class GrammarState {
 public:
  virtual ~GrammarState() = default;
  // Sets bit i % 32 of word i / 32 for every token i that may come next: mask [(vocab_size + 31) / 32]. No bit is set
  // after the end, and after a token that was not allowed.
  virtual void next_tokens(std::span<uint32_t> mask) = 0;
  virtual void accept(int32_t token_id) = 0;
};

class Grammar {
 public:
  virtual ~Grammar() = default;
  virtual std::unique_ptr<GrammarState> start() const = 0;  // thread-safe; may outlive this
  virtual int64_t num_bytes() const = 0;                    // of memory, about
};

// A language of exactly these texts, as EBNF.
GrammarSpec choice_grammar(std::span<const std::string> choices);

}  // namespace octet
