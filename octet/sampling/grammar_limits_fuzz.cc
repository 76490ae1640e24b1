// Any bytes as a grammar of every kind: only Error may come out of the check.
#include <cstddef>
#include <cstdint>
#include <string>

#include "octet/base/error.h"
#include "octet/sampling/grammar_limits.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace octet;
  const std::string text(reinterpret_cast<const char*>(data), size);
  using Kind = GrammarSpec::Kind;
  for (const Kind kind : {Kind::kJson, Kind::kJsonSchema, Kind::kRegex, Kind::kEbnf, Kind::kStructuralTag}) {
    try {
      check_grammar({kind, text});
    } catch (const Error&) {
    }
  }
  return 0;
}
