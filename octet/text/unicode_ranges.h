// Unicode classes as Hugging Face's `tokenizers` sees them: sorted, disjoint ranges of code points, surrogates left
// out. The tables are generated (scripts/make_unicode_ranges.py), because the Unicode of PCRE2 10.42 is older: \p{L}
// would miss 9,272 letters.
#pragma once

#include <span>
#include <string_view>

namespace octet::unicode {

struct CodePointRange {
  char32_t first = 0;
  char32_t last = 0;  // inclusive
};
using Ranges = std::span<const CodePointRange>;

struct NamedRanges {
  std::string_view name;
  Ranges ranges;
};

// The general categories ("Lu", "Nd", "Cn", ...); together they cover every code point once.
std::span<const NamedRanges> categories();

Ranges space();  // \s, \d and \w of regular expressions
Ranges digit();
Ranges word();
Ranges white_space();            // what Rust's char::is_whitespace says
Ranges numeric();                // ... char::is_numeric
Ranges punctuation();            // what the pre-tokenizer Punctuation splits at
Ranges word_of_whitespace();     // \w of the pre-tokenizer Whitespace and of single_word added tokens
Ranges normalization_joiners();  // may combine with, or move before, the character in front of them
Ranges nfc_changes();            // NFC changes them even when alone

bool contains(Ranges ranges, char32_t code_point);

}  // namespace octet::unicode
