// GPT-2's alphabet: each byte as one printable character, in which byte-level vocabularies spell their tokens ("Ġ" is a
// space). https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace octet::byte_alphabet {

char32_t to_code_point(uint8_t byte);

// The bytes that `token` spells; nullopt when a character is not of the alphabet.
std::optional<std::string> to_bytes(std::string_view token);

}  // namespace octet::byte_alphabet
