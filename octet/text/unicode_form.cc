#include "octet/text/unicode_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "octet/base/error.h"
#include "octet/text/unicode_ranges.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr char32_t kFirstJoiner = 0x300;  // below it nothing combines with what stands in front

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

void append_decomposed(std::vector<utf8proc_int32_t>& out, char32_t c, bool compatible) {
  utf8proc_int32_t buffer[32];
  int boundary = 0;
  const int options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
  const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer, 32,
                                                         static_cast<utf8proc_option_t>(options), &boundary);
  OCTET_CHECK(count >= 0 && count <= 32);
  out.insert(out.end(), buffer, buffer + count);
}

// Canonical order. utf8proc's own pass is quadratic in a run of marks, which a prompt could abuse.
void sort_marks(std::vector<utf8proc_int32_t>& text) {
  for (size_t begin = 0; begin < text.size();) {
    if (combining_class(text[begin]) == 0) {
      ++begin;
      continue;
    }
    size_t end = begin;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

}  // namespace

bool is_nfc_alone(char32_t code_point) {
  return code_point < 0xC0 || !unicode::contains(unicode::nfc_changes(), code_point);
}

size_t normalization_boundary(std::string_view text, size_t position) {
  position += utf8::decode_at(text, position).length;
  while (position < text.size()) {
    const utf8::Decoded next = utf8::decode_at(text, position);
    if (next.code_point < kFirstJoiner || !unicode::contains(unicode::normalization_joiners(), next.code_point)) break;
    position += next.length;
  }
  return position;
}

void append_normal_form(std::string& out, std::string_view segment, UnicodeForm form) {
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  std::vector<utf8proc_int32_t> text;
  for (size_t i = 0; i < segment.size();) {
    const utf8::Decoded next = utf8::decode_at(segment, i);
    append_decomposed(text, next.code_point, compatible);
    i += next.length;
  }
  sort_marks(text);
  if (form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc) {
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    const utf8proc_ssize_t length =
        utf8proc_normalize_utf32(text.data(), static_cast<utf8proc_ssize_t>(text.size()), options);
    OCTET_CHECK(length >= 0);
    text.resize(static_cast<size_t>(length));
  }
  for (const utf8proc_int32_t c : text) utf8::append(out, static_cast<char32_t>(c));
}

}  // namespace octet
