#include "octet/server/json_body.h"

#include <charconv>

#include "octet/server/api_error.h"

namespace octet {
namespace {

constexpr int kMaxDepth = 128;

// The four hexadecimal digits at `at`, or -1.
int code_unit(const std::string& text, size_t at) {
  if (at + 4 > text.size()) return -1;
  int value = 0;
  const auto [end, error] = std::from_chars(text.data() + at, text.data() + at + 4, value, 16);
  return error == std::errc() && end == text.data() + at + 4 ? value : -1;
}

bool is_high(int unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low(int unit) { return unit >= 0xDC00 && unit < 0xE000; }

void repair_surrogates(std::string& text) {
  for (size_t at = text.find('\\'); at != text.npos && at + 1 < text.size(); at = text.find('\\', at)) {
    const int unit = text[at + 1] == 'u' ? code_unit(text, at + 2) : -1;
    if (!is_high(unit) && !is_low(unit)) {
      at += 2;
      continue;
    }
    const bool paired = is_high(unit) && text.compare(at + 6, 2, "\\u") == 0 && is_low(code_unit(text, at + 8));
    if (!paired) text.replace(at + 2, 4, "FFFD");
    at += paired ? 12 : 6;
  }
}

// Deeper than what parse_json allows would still be a deep recursion for whoever reads the document.
bool is_nested_deeper(const std::string& text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\';
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Json parse_body(std::string body) {
  if (body.empty()) throw ApiError(400, "json_parse_error", "The body is empty; a JSON object is expected.");
  if (is_nested_deeper(body, kMaxDepth)) {
    throw ApiError(400, "json_parse_error", fmt::format("body: nested deeper than {}", kMaxDepth));
  }
  repair_surrogates(body);
  Json json;
  try {
    json = parse_json(body, "body");
  } catch (const Error& error) {
    throw ApiError(400, "json_parse_error", shortened(error.what(), 300));
  }
  if (!json.is_object()) {
    throw ApiError(400, "invalid_value", "The body must be a JSON object, not " + std::string(json.type_name()) + ".");
  }
  return json;
}

}  // namespace octet
