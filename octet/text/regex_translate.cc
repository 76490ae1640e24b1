// Oniguruma's syntax (Ruby's dialect, UTF-8) in PCRE2's words.
#include <algorithm>
#include <iterator>
#include <optional>

#include "octet/base/error.h"
#include "octet/text/regex.h"
#include "octet/text/unicode_ranges.h"

namespace octet {
namespace {

using unicode::CodePointRange;
using RangeList = std::vector<CodePointRange>;

constexpr size_t kMaxPattern = 4096;

RangeList merged(RangeList ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  RangeList out;
  for (const CodePointRange& range : ranges) {
    if (!out.empty() && range.first <= out.back().last + 1) {
      out.back().last = std::max(out.back().last, range.last);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

RangeList complement(const RangeList& ranges) {
  RangeList out;
  char32_t next = 0;
  for (const CodePointRange& range : ranges) {
    if (range.first > next) out.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= 0x10FFFF) out.push_back({next, 0x10FFFF});
  return out;
}

RangeList copy_of(unicode::Ranges ranges) { return {ranges.begin(), ranges.end()}; }

// A general category ("Lu"), a group of them ("L"), or nothing when the name is another one.
RangeList category_ranges(std::string_view name) {
  RangeList out;
  for (const unicode::NamedRanges& category : unicode::categories()) {
    if (category.name.substr(0, name.size()) == name)
      out.insert(out.end(), category.ranges.begin(), category.ranges.end());
  }
  return merged(std::move(out));
}

// Ranges as the inside of a PCRE2 class. Surrogates are not characters and PCRE2 refuses to read them.
void append_ranges(std::string& out, const RangeList& ranges) {
  const auto append = [&](char32_t first, char32_t last) {
    if (first > last) return;
    fmt::format_to(std::back_inserter(out), "\\x{{{:x}}}", static_cast<uint32_t>(first));
    if (last > first) fmt::format_to(std::back_inserter(out), "-\\x{{{:x}}}", static_cast<uint32_t>(last));
  };
  for (const CodePointRange& range : ranges) {
    if (range.first < 0xD800 && range.last > 0xDFFF) {
      append(range.first, 0xD7FF);
      append(0xE000, range.last);
    } else {
      append(range.first >= 0xD800 && range.first <= 0xDFFF ? 0xE000 : range.first,
             range.last >= 0xD800 && range.last <= 0xDFFF ? 0xD7FF : range.last);
    }
  }
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    if (pattern_.size() > kMaxPattern) unsupported("a pattern longer than 4,096 bytes");
    while (position_ < pattern_.size()) outside_class();
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(std::string_view what) const {
    fail(ErrorCode::kModel, "{}: regular expression \"{}\": {} is not supported", where_, pattern_, what);
  }
  bool next_is(std::string_view text) const { return pattern_.substr(position_, text.size()) == text; }
  char take() {
    if (position_ >= pattern_.size()) unsupported("an unfinished escape or class");
    return pattern_[position_++];
  }

  void outside_class() {
    if (next_is("\\")) {
      ++position_;
      if (const std::optional<RangeList> ranges = class_escape()) {
        out_ += '[';
        append_ranges(out_, *ranges);
        out_ += ']';
      } else {
        plain_escape();
      }
    } else if (next_is("[")) {
      char_class();
    } else if (next_is("(?")) {
      group_start();
    } else if (next_is("{")) {
      interval();
    } else if (next_is("(*")) {
      unsupported("(*");
    } else {
      out_ += take();
    }
  }

  void group_start() {
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"}) {
      if (!next_is(known)) continue;
      out_ += known;
      position_ += known.size();
      return;
    }
    unsupported("this kind of group");
  }

  void interval() {
    const size_t end = pattern_.find('}', position_);
    const std::string_view body =
        pattern_.substr(position_ + 1, end == std::string_view::npos ? 0 : end - position_ - 1);
    if (body.empty() || body[0] == ',' || body.find_first_not_of("0123456789,") != std::string_view::npos)
      unsupported("this use of {");
    out_ += fmt::format("{{{}}}", body);
    position_ = end + 1;
    if (next_is("+")) unsupported("a quantifier after {}");  // Ruby: repeat it; PCRE2: possessive
  }

  // After a backslash: the characters of \p{..}, \s, \d, \w and their opposites; nullopt for another escape.
  std::optional<RangeList> class_escape() {
    switch (pattern_.empty() || position_ >= pattern_.size() ? '\0' : pattern_[position_]) {
      case 's':
        ++position_;
        return copy_of(unicode::space());
      case 'S':
        ++position_;
        return complement(copy_of(unicode::space()));
      case 'd':
        ++position_;
        return copy_of(unicode::digit());
      case 'D':
        ++position_;
        return complement(copy_of(unicode::digit()));
      case 'w':
        ++position_;
        return copy_of(unicode::word());
      case 'W':
        ++position_;
        return complement(copy_of(unicode::word()));
      case 'p':
        ++position_;
        return property(false);
      case 'P':
        ++position_;
        return property(true);
      default:
        return std::nullopt;
    }
  }

  RangeList property(bool negated) {
    const size_t end = pattern_.find('}', position_);
    if (!next_is("{") || end == std::string_view::npos) unsupported("\\p without {name}");
    std::string_view name = pattern_.substr(position_ + 1, end - position_ - 1);
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    RangeList ranges = name.empty() ? RangeList() : category_ranges(name);
    if (ranges.empty()) unsupported(fmt::format("\\p{{{}}}", name));
    position_ = end + 1;
    return negated ? complement(ranges) : ranges;
  }

  void plain_escape() {
    const char c = take();
    switch (c) {
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        out_ += '\\';
        out_ += c;
        return;
      case 'v':
        out_ += "\\x0b";
        return;
      case 'x':
        hex_escape();
        return;
      case 'u': {
        std::string digits;
        for (int i = 0; i < 4; ++i) digits += take();
        append_hex(digits);
        return;
      }
      default:
        break;
    }
    const bool letter_or_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter_or_digit) unsupported(fmt::format("\\{}", c));
    if (static_cast<unsigned char>(c) < 0x80) out_ += '\\';
    out_ += c;
  }

  void hex_escape() {
    std::string digits;
    if (next_is("{")) {
      ++position_;
      for (char c = take(); c != '}'; c = take()) digits += c;
    } else {
      digits += take();
      digits += take();
    }
    append_hex(digits);
  }

  void append_hex(const std::string& digits) {
    if (digits.empty() || digits.size() > 6 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      unsupported("this hexadecimal escape");
    }
    out_ += fmt::format("\\x{{{}}}", digits);
  }

  void char_class() {
    out_ += take();
    if (next_is("^")) out_ += take();
    if (next_is("]")) unsupported("an empty class");
    while (!next_is("]")) {
      if (next_is("[")) unsupported("a class inside a class");
      if (next_is("&&")) unsupported("&&");
      if (next_is("\\")) {
        ++position_;
        if (const std::optional<RangeList> ranges = class_escape()) {
          append_ranges(out_, *ranges);
        } else {
          plain_escape();
        }
      } else {
        out_ += take();
      }
    }
    out_ += take();
  }

  std::string_view pattern_;
  std::string_view where_;
  size_t position_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

}  // namespace octet
