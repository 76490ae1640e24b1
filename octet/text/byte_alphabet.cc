#include "octet/text/byte_alphabet.h"

#include <array>

#include "octet/text/utf8.h"

namespace octet::byte_alphabet {
namespace {

constexpr bool is_printable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Tables {
  std::array<char32_t, 256> code_points{};
  std::array<int16_t, 0x144> bytes{};

  constexpr Tables() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t c = is_printable(byte) ? static_cast<char32_t>(byte) : next++;
      code_points[static_cast<size_t>(byte)] = c;
      bytes[c] = static_cast<int16_t>(byte);
    }
  }
};

constexpr Tables kTables;

}  // namespace

char32_t to_code_point(uint8_t byte) { return kTables.code_points[byte]; }

std::optional<std::string> to_bytes(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  for (size_t i = 0; i < token.size();) {
    const utf8::Decoded c = utf8::decode_at(token, i);
    const int byte = c.code_point < kTables.bytes.size() ? kTables.bytes[c.code_point] : -1;
    if (byte < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte));
    i += c.length;
  }
  return out;
}

}  // namespace octet::byte_alphabet
