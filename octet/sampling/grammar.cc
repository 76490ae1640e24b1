#include "octet/sampling/grammar.h"

#include <fmt/format.h>

namespace octet {

GrammarSpec choice_grammar(std::span<const std::string> choices) {
  std::string text = "root ::= ";
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) text += " | ";
    text += '"';
    for (const char c : choices[i]) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        text += '\\';
        text += c;
      } else if (byte < 0x20 || byte == 0x7F) {
        text += fmt::format("\\u{:04x}", byte);
      } else {
        text += c;
      }
    }
    text += '"';
  }
  return {.kind = GrammarSpec::Kind::kEbnf, .text = std::move(text)};
}

}  // namespace octet
