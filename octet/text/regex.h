// The regular expressions of a tokenizer.json: written for Oniguruma (Ruby's syntax), run by PCRE2 with JIT. Every
// Unicode class (\p{L}, \s, \d, \w and their opposites) is spelled out as the code points that Oniguruma means. Syntax
// that the two libraries read differently throws Error{kModel}.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

class Regex {
 public:
  Regex(std::string_view pattern, std::string_view where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Every match in `text` (valid UTF-8), from left to right. Thread-safe. Throws Error{kInvalid} when a match takes
  // more steps or memory than a sane pattern on a sane text would.
  std::vector<TextRange> find_all(std::string_view text) const;

 private:
  struct Compiled;
  std::unique_ptr<const Compiled> compiled_;
};

// Oniguruma's pattern as a PCRE2 pattern. Exposed for tests.
std::string translate_pattern(std::string_view pattern, std::string_view where);

}  // namespace octet
