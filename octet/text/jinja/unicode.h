// Python's str predicates and changes of case, per code point (categories and simple mappings from utf8proc).
#pragma once

#include "octet/text/jinja/text.h"

namespace octet::jinja {

bool is_space(char32_t c);  // str.isspace, what str.strip() strips
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);  // digits that form numbers
bool is_digit(char32_t c);    // decimals, superscripts and the like
bool is_numeric(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_printable(char32_t c);  // what repr() leaves as it is
bool is_word(char32_t c);       // \w of Python's re

Text upper(const Text& text);
Text lower(const Text& text);
Text capitalize(const Text& text);  // str.capitalize: first character in title case, the rest in lower case
Text title(const Text& text);       // str.title
Text swap_case(const Text& text);

}  // namespace octet::jinja
