#include "octet/text/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "octet/text/jinja/special_casing.h"

namespace octet::jinja {
namespace {

int category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool is_cased(char32_t c) { return is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT; }

const SpecialUpper* special_upper(char32_t c) {
  const auto* row = std::lower_bound(std::begin(kSpecialUpper), std::end(kSpecialUpper), c,
                                     [](const SpecialUpper& a, char32_t b) { return a.code_point < b; });
  return row != std::end(kSpecialUpper) && row->code_point == c ? row : nullptr;
}

char32_t simple_lower(char32_t c) { return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); }

void put_upper(TextBuilder& out, char32_t c, TextOrigin origin) {
  if (const SpecialUpper* special = special_upper(c)) {
    out.append(special->upper, origin);
  } else {
    out.append(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), origin);
  }
}

void put_title(TextBuilder& out, char32_t c, TextOrigin origin) {
  const auto simple = static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
  const SpecialUpper* special = special_upper(c);
  if (!special || (simple != c && c != 0xdf)) {
    out.append(simple, origin);
    return;
  }
  size_t at = 0;
  out.append(next_code_point(special->upper, at), origin);
  while (at < special->upper.size()) out.append(simple_lower(next_code_point(special->upper, at)), origin);
}

// A capital sigma at a word's end becomes the final small sigma. Looks past marks and apostrophes only, so a text of
// sigmas costs linear time.
bool sigma_is_final(std::string_view utf8, size_t begin, size_t end) {
  const auto ignorable = [](char32_t c) { return category(c) == UTF8PROC_CATEGORY_MN || c == '\''; };
  bool letter_before = false;
  for (size_t at = begin; at > 0;) {
    do --at;
    while ((utf8[at] & 0xc0) == 0x80);
    size_t next = at;
    const char32_t c = next_code_point(utf8, next);
    if (ignorable(c)) continue;
    letter_before = is_cased(c);
    break;
  }
  for (size_t at = end; at < utf8.size();) {
    const char32_t c = next_code_point(utf8, at);
    if (!ignorable(c)) return letter_before && !is_cased(c);
  }
  return letter_before;
}

void put_lower(TextBuilder& out, const Text& text, size_t begin, size_t end, char32_t c) {
  const TextOrigin origin = text.origin_at(begin);
  if (c == 0x130) {
    out.append("i\xcc\x87", origin);
  } else if (c == 0x3a3) {
    out.append(sigma_is_final(text.bytes(), begin, end) ? char32_t{0x3c2} : char32_t{0x3c3}, origin);
  } else {
    out.append(simple_lower(c), origin);
  }
}

// Calls put(builder, begin, end, code point) for every character.
template <class Put>
Text map_code_points(const Text& text, Put put) {
  TextBuilder out;
  for (size_t at = 0; at < text.bytes().size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(text.bytes(), at);
    put(out, begin, at, c);
  }
  return out.build();
}

}  // namespace

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_alpha(char32_t c) {
  const int k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247c) ||
         (c >= 0x2488 && c <= 0x2490);
}

bool is_numeric(char32_t c) {
  const int k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool is_upper(char32_t c) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0; }
bool is_lower(char32_t c) { return utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0; }

bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

bool is_word(char32_t c) { return c == '_' || is_alpha(c) || is_numeric(c); }

Text upper(const Text& text) {
  return map_code_points(
      text, [&](TextBuilder& out, size_t begin, size_t, char32_t c) { put_upper(out, c, text.origin_at(begin)); });
}

Text lower(const Text& text) {
  return map_code_points(
      text, [&](TextBuilder& out, size_t begin, size_t end, char32_t c) { put_lower(out, text, begin, end, c); });
}

Text capitalize(const Text& text) {
  return map_code_points(text, [&](TextBuilder& out, size_t begin, size_t end, char32_t c) {
    if (begin == 0) {
      put_title(out, c, text.origin_at(begin));
    } else {
      put_lower(out, text, begin, end, c);
    }
  });
}

Text title(const Text& text) {
  bool after_cased = false;
  return map_code_points(text, [&](TextBuilder& out, size_t begin, size_t end, char32_t c) {
    if (after_cased) {
      put_lower(out, text, begin, end, c);
    } else {
      put_title(out, c, text.origin_at(begin));
    }
    after_cased = is_cased(c);
  });
}

Text swap_case(const Text& text) {
  return map_code_points(text, [&](TextBuilder& out, size_t begin, size_t end, char32_t c) {
    if (is_upper(c)) {
      put_lower(out, text, begin, end, c);
    } else if (is_lower(c)) {
      put_upper(out, c, text.origin_at(begin));
    } else {
      out.append(c, text.origin_at(begin));
    }
  });
}

}  // namespace octet::jinja
