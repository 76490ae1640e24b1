#include "octet/base/error.h"
#include "octet/sampling/grammar_builder.h"

namespace octet {

std::shared_ptr<const GrammarBuilder> make_grammar_builder(const GrammarVocabulary&) {
  fail(ErrorCode::kUnsupported, "this build of octet has no structured output: xgrammar was missing when it was made");
}

}  // namespace octet
