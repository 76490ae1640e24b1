// UTF-8: reading, writing and repair. Functions without "lossy" in their name expect valid UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace octet::utf8 {

struct Decoded {
  char32_t code_point = 0;
  size_t length = 0;  // bytes read, 1-4
};

// The character that starts at text[position].
Decoded decode_at(std::string_view text, size_t position);

void append(std::string& out, char32_t code_point);

// How the bytes at text[position] read, valid or not.
enum class Form { kValid, kInvalid, kIncomplete };  // kIncomplete: cut off by the end of the text
struct Piece {
  Form form = Form::kValid;
  size_t length =
      0;  // of the character, or of the maximal invalid piece, which U+FFFD stands for (WHATWG, Rust, Python)
};
Piece piece_at(std::string_view bytes, size_t position);

bool is_valid(std::string_view bytes);

// `bytes` with each maximal invalid piece replaced by one U+FFFD.
std::string repair_lossy(std::string_view bytes);

// The length of the longest prefix that is valid UTF-8.
size_t valid_prefix(std::string_view bytes);

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace octet::utf8
