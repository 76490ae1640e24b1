// Unicode normalisation, character by character equal to that of Hugging Face's `tokenizers`.
#pragma once

#include <string>
#include <string_view>

#include "octet/text/normalizer.h"

namespace octet {

// Appends the normal form of `segment` (valid UTF-8) to `out`.
void append_normal_form(std::string& out, std::string_view segment, UnicodeForm form);

// The end of the shortest piece from `position` on that can be normalised by itself.
size_t normalization_boundary(std::string_view text, size_t position);

// Whether the character that stands alone at `position` stays as it is in NFC.
bool is_nfc_alone(char32_t code_point);

}  // namespace octet
