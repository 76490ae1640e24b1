// GrammarBuilder: what turns specs into grammars for one vocabulary. There is one implementation, which builds without
// xgrammar lack.
#pragma once

#include <memory>

#include "octet/sampling/grammar.h"

namespace octet {

class GrammarBuilder {
 public:
  virtual ~GrammarBuilder() = default;
  // Throws Error{kInvalid} that says what is wrong with the spec. Takes as long, and as much memory, as it takes:
  // GrammarCompiler bounds both. Thread-safe.
  virtual std::shared_ptr<const Grammar> build(const GrammarSpec& spec) const = 0;
};

// Throws Error{kUnsupported} in a build without xgrammar.
std::shared_ptr<const GrammarBuilder> make_grammar_builder(const GrammarVocabulary& vocabulary);

}  // namespace octet
