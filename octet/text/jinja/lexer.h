// Template source to tokens, with jinja2's rules for white space: trim_blocks, lstrip_blocks, `-` and `+` marks, raw
// blocks, one trailing newline dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "octet/text/jinja/value.h"

namespace octet::jinja {

enum class TokenKind {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;     // the literal text, name, operator, or a string's decoded contents
  Integer integer = 0;  // kInteger
  double floating = 0;  // kFloat
  int line = 1;
};

// Throws SyntaxError.
std::vector<Token> tokenize(std::string_view source);

class SyntaxError : public std::runtime_error {
 public:
  SyntaxError(int l, const std::string& text) : std::runtime_error(text), line(l) {}
  int line;
};

}  // namespace octet::jinja
