#include "octet/text/utf8.h"

#include <cstdint>
#include <cstring>

namespace octet::utf8 {
namespace {

// Advances over ASCII, eight bytes at a time.
size_t skip_ascii(std::string_view text, size_t position) {
  while (position + 8 <= text.size()) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + position, 8);
    if (word & 0x8080808080808080ull) break;
    position += 8;
  }
  while (position < text.size() && static_cast<unsigned char>(text[position]) < 0x80) ++position;
  return position;
}

}  // namespace

Decoded decode_at(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {static_cast<char32_t>((lead & 0x1F) << 6 | (byte(1) & 0x3F)), 2};
  if (lead < 0xF0) return {static_cast<char32_t>((lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F)), 3};
  return {
      static_cast<char32_t>((lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F)),
      4};
}

void append(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

Piece piece_at(std::string_view bytes, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[position + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Form::kValid, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Form::kInvalid, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Unicode's table 3-7: the second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (position + i >= bytes.size()) return {Form::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Form::kInvalid, i};
    low = 0x80, high = 0xBF;
  }
  return {Form::kValid, length};
}

size_t valid_prefix(std::string_view bytes) {
  size_t position = skip_ascii(bytes, 0);
  while (position < bytes.size()) {
    const Piece piece = piece_at(bytes, position);
    if (piece.form != Form::kValid) return position;
    position = skip_ascii(bytes, position + piece.length);
  }
  return position;
}

bool is_valid(std::string_view bytes) { return valid_prefix(bytes) == bytes.size(); }

std::string repair_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (true) {
    const size_t good = valid_prefix(bytes);
    out.append(bytes.substr(0, good));
    if (good == bytes.size()) return out;
    out.append(kReplacement);
    bytes.remove_prefix(good + piece_at(bytes, good).length);
  }
}

}  // namespace octet::utf8
