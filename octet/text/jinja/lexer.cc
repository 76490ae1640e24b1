#include "octet/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

// Longest first, so that "//" is not two "/".
constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

// "\r\n" and "\r" become "\n"; one trailing newline goes.
std::string normalize_newlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text.push_back(source[i]);
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    size_t at = text.size() - 1;
    while ((text[at] & 0xc0) == 0x80) --at;
    size_t end = at;
    if (!is_space(next_code_point(text, end))) break;
    text.remove_suffix(text.size() - at);
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_text();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(const std::string& text) { throw SyntaxError(line_, text); }
  char peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }
  bool starts(std::string_view prefix) const { return std::string_view(source_).substr(at_).starts_with(prefix); }

  void advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
  }

  void add(TokenKind kind, std::string_view text) {
    Token token;
    token.kind = kind;
    token.text = text;
    token.line = line_;
    tokens_.push_back(std::move(token));
  }

  void skip_space() {
    while (at_ < source_.size()) {
      size_t next = at_;
      if (!is_space(next_code_point(source_, next))) return;
      advance(next - at_);
    }
  }

  // "%}" and "#}" with their marks: "-" eats all space behind, "+" nothing, plain one newline.
  bool take_end(std::string_view end) {
    const std::string minus = "-" + std::string(end), plus = "+" + std::string(end);
    if (starts(minus)) {
      advance(minus.size());
      skip_space();
    } else if (starts(plus)) {
      advance(plus.size());
    } else if (starts(end)) {
      advance(end.size());
      if (peek() == '\n') advance(1);
    } else {
      return false;
    }
    return true;
  }

  // The text before a tag, after what the tag's mark or lstrip_blocks takes away from it.
  std::string_view text_before(size_t begin, size_t tag, bool may_strip_line) const {
    const std::string_view text = std::string_view(source_).substr(begin, tag - begin);
    const char mark = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (mark == '-') return strip_right(text);
    if (mark == '+' || !may_strip_line) return text;
    const size_t newline = text.rfind('\n');
    const bool line_start = newline != std::string_view::npos || begin == 0 || source_[begin - 1] == '\n';
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    return line_start && strip_right(text.substr(line)).empty() ? text.substr(0, line) : text;
  }

  void add_text(std::string_view text) {
    if (!text.empty()) add(TokenKind::kText, text);
  }

  // One stretch of template text and the tag that ends it.
  void lex_text() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add_text(std::string_view(source_).substr(at_));
        at_ = source_.size();
        return;
      }
      const char next = source_[tag + 1];
      if (next == '%' || next == '{' || next == '#') break;
    }
    const char kind = source_[tag + 1];
    add_text(text_before(at_, tag, kind != '{'));
    advance(tag - at_ + 2);
    if (kind == '%' && lex_raw()) return;
    if (peek() == '-' || peek() == '+') advance(1);
    if (kind == '#') {
      lex_comment();
    } else {
      lex_code(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin);
    }
  }

  void lex_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) error("missing end of comment tag");
    const bool marked = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    advance(end - (marked ? 1 : 0) - at_);
    take_end("#}");
  }

  // From `at`, past spaces, the word `word` and spaces: the place behind, or npos.
  size_t past_word(size_t at, std::string_view word) const {
    const auto skip = [&] {
      while (at < source_.size()) {
        size_t next = at;
        if (!is_space(next_code_point(source_, next))) return;
        at = next;
      }
    };
    skip();
    if (!std::string_view(source_).substr(at).starts_with(word)) return std::string::npos;
    at += word.size();
    skip();
    return at;
  }

  // {% raw %} ... {% endraw %}; at_ is behind "{%".
  bool lex_raw() {
    const size_t begin = at_ + (peek() == '-' || peek() == '+' ? 1 : 0);
    const size_t end = past_word(begin, "raw");
    if (end == std::string::npos) return false;
    const std::string_view rest = std::string_view(source_).substr(end);
    if (rest.starts_with("-%}")) {
      advance(end + 3 - at_);
      skip_space();
    } else if (rest.starts_with("%}")) {
      advance(end + 2 - at_);
    } else {
      return false;
    }
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const size_t name = tag + 2 + (source_[tag + 2] == '-' || source_[tag + 2] == '+' ? 1 : 0);
      const size_t close = past_word(name, "endraw");
      if (close == std::string::npos) continue;
      const std::string_view tail = std::string_view(source_).substr(close);
      if (!tail.starts_with("%}") && !tail.starts_with("-%}") && !tail.starts_with("+%}")) continue;
      add_text(text_before(at_, tag, true));
      advance(close - at_);
      take_end("%}");
      return true;
    }
    error("missing end of raw directive");
  }

  void lex_code(TokenKind begin) {
    add(begin, "");
    open_.clear();
    while (true) {
      skip_space();
      if (at_ >= source_.size()) return;
      if (open_.empty() && lex_code_end(begin)) return;
      lex_token();
    }
  }

  bool lex_code_end(TokenKind begin) {
    const int line = line_;
    if (begin == TokenKind::kBlockBegin) {
      if (!take_end("%}")) return false;
      add(TokenKind::kBlockEnd, "");
    } else if (starts("-}}")) {
      advance(3);
      skip_space();
      add(TokenKind::kVariableEnd, "");
    } else if (starts("}}")) {
      advance(2);
      add(TokenKind::kVariableEnd, "");
    } else {
      return false;
    }
    tokens_.back().line = line;
    return true;
  }

  void lex_token() {
    const char c = peek();
    if (is_ascii_digit(c)) return lex_number();
    if (c == '\'' || c == '"') return lex_string(c);
    size_t end = at_;
    while (end < source_.size()) {
      size_t next = end;
      if (!is_word(next_code_point(source_, next))) break;
      end = next;
    }
    if (end > at_) {
      add(TokenKind::kName, std::string_view(source_).substr(at_, end - at_));
      return advance(end - at_);
    }
    for (const std::string_view op : kOperators) {
      if (!starts(op)) continue;
      balance(op);
      add(TokenKind::kOperator, op);
      return advance(op.size());
    }
    error(fmt::format("unexpected character at '{}'", source_.substr(at_, sequence_length(c))));
  }

  void balance(std::string_view op) {
    if (op == "(" || op == "[" || op == "{") {
      open_.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
    } else if (op == ")" || op == "]" || op == "}") {
      if (open_.empty() || open_.back() != op[0]) error(fmt::format("unexpected '{}'", op));
      open_.pop_back();
    }
  }

  // Digits with single underscores between them, from `at`; the place behind.
  size_t past_digits(size_t at) const {
    const auto digit = [&](size_t i) { return i < source_.size() && is_ascii_digit(source_[i]); };
    while (digit(at) || (at < source_.size() && source_[at] == '_' && digit(at + 1))) ++at;
    return at;
  }

  std::optional<size_t> float_end() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return std::nullopt;
    size_t end = past_digits(at_);
    bool is_float = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_ascii_digit(source_[end + 1])) {
      end = past_digits(end + 1);
      is_float = true;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      if (exponent < source_.size() && is_ascii_digit(source_[exponent])) {
        end = past_digits(exponent);
        is_float = true;
      }
    }
    return is_float ? std::optional(end) : std::nullopt;
  }

  void lex_number() {
    const auto without_underscores = [&](size_t begin, size_t end) {
      std::string digits = source_.substr(begin, end - begin);
      std::erase(digits, '_');
      return digits;
    };
    if (const auto end = float_end()) {
      const std::string digits = without_underscores(at_, *end);
      add(TokenKind::kFloat, digits);
      double& value = tokens_.back().floating;
      const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (parsed.ec == std::errc::result_out_of_range) value = digits.find("e-") != std::string::npos ? 0.0 : HUGE_VAL;
      return advance(*end - at_);
    }
    int base = 10;
    const char mark = static_cast<char>(peek(1) | 0x20);
    if (peek() == '0' && (mark == 'x' || mark == 'o' || mark == 'b')) base = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
    size_t end = at_ + (base == 10 ? 0 : 2);
    const auto is_digit_of_base = [&](size_t i) {
      const char c = i < source_.size() ? source_[i] : ' ';
      const int digit = is_ascii_digit(c)                        ? c - '0'
                        : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                                 : 99;
      return digit < (base == 10 && peek() == '0' ? 1 : base);  // "007" is three tokens
    };
    while (is_digit_of_base(end) ||
           (end > at_ && end < source_.size() && source_[end] == '_' && is_digit_of_base(end + 1)))
      ++end;
    const size_t digits_begin = at_ + (base == 10 ? 0 : 2);
    if (end == digits_begin) base = 10, end = at_ + 1;
    add_integer(without_underscores(base == 10 ? at_ : digits_begin, end), base);
    advance(end - at_);
  }

  void add_integer(const std::string& digits, int base) {
    Integer value = 0;
    for (const char c : digits) {
      const int digit = is_ascii_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
      if (__builtin_mul_overflow(value, Integer{base}, &value) ||
          __builtin_add_overflow(value, Integer{digit}, &value)) {
        error("integer literal is too large");
      }
    }
    add(TokenKind::kInteger, digits);
    tokens_.back().integer = value;
  }

  void lex_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("unterminated string");
    add(TokenKind::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
  }

  // Python's "unicode-escape".
  std::string unescape(std::string_view raw) {
    std::string text;
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\') {
        text.push_back(raw[i]);
        continue;
      }
      const char c = raw[++i];
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t simple = kFrom.find(c); simple != std::string_view::npos) {
        text.push_back(kTo[simple]);
      } else if (c == '\n') {
        continue;
      } else if (c >= '0' && c <= '7') {
        char32_t code = 0;
        const size_t stop = std::min(i + 3, raw.size());
        for (; i < stop && raw[i] >= '0' && raw[i] <= '7'; ++i) code = code * 8 + static_cast<char32_t>(raw[i] - '0');
        --i;
        append_code_point(text, code);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const char* begin = raw.data() + i + 1;
        uint32_t code = 0;
        if (i + count >= raw.size()) error("truncated escape in a string");
        const auto parsed = std::from_chars(begin, begin + count, code, 16);
        if (parsed.ptr != begin + count || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
          error("bad escape in a string");
        append_code_point(text, code);
        i += count;
      } else if (c == 'N') {
        error("\\N{...} escapes are not supported");
      } else {
        text.push_back('\\');
        text.push_back(c);
      }
    }
    return text;
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<char> open_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(normalize_newlines(to_valid_utf8(source))).run(); }

}  // namespace octet::jinja
