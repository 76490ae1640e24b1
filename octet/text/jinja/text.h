// The interpreter's string: immutable, valid UTF-8, indexed by code point as Python does, and each piece of it knows
// whether it came from the template (kTrusted) or from the caller's messages (kUser). Copies share one buffer.
//
// Every operation of the interpreter that makes a string from strings goes through TextBuilder, so origins survive
// concatenation, slicing, stripping, replacing, changes of case and JSON escaping.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "octet/text/tokenizer.h"

namespace octet::jinja {

// Length in bytes of the well-formed UTF-8 sequence that starts with `lead`.
inline size_t sequence_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}
// Reads the code point at `at` of valid UTF-8 and moves `at` behind it.
char32_t next_code_point(std::string_view utf8, size_t& at);
void append_code_point(std::string& utf8, char32_t code_point);  // surrogates and values above 0x10ffff become U+FFFD
// Bytes of any kind to valid UTF-8: each maximal ill-formed piece becomes U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

TextOrigin combine(TextOrigin a, TextOrigin b);  // kUser if either is

class Text {
 public:
  struct Run {  // the bytes up to `end` (exclusive) that follow the previous run
    size_t end;
    TextOrigin origin;
  };

  Text() = default;
  Text(std::string_view utf8, TextOrigin origin);
  static Text trusted(std::string_view utf8) { return Text(utf8, TextOrigin::kTrusted); }

  std::string_view bytes() const { return buffer_ ? std::string_view(buffer_->bytes) : std::string_view(); }
  const std::vector<Run>& runs() const;
  bool empty() const { return !buffer_; }
  int64_t length() const { return buffer_ ? buffer_->num_code_points : 0; }

  bool any_user() const;
  TextOrigin origin() const { return any_user() ? TextOrigin::kUser : TextOrigin::kTrusted; }
  TextOrigin origin_at(size_t byte) const;

  // The byte where code point `index` starts; index == length() gives the size.
  size_t byte_of(int64_t index) const;
  Text slice_bytes(size_t begin, size_t end) const;  // both on code point boundaries
  Text at(int64_t index) const;                      // one code point

  // Set by the filters `safe` and `escape`: text that is not escaped again.
  bool is_markup() const { return markup_; }
  Text as_markup(bool markup) const;

  friend bool operator==(const Text& a, const Text& b) { return a.bytes() == b.bytes(); }

 private:
  friend class TextBuilder;
  struct Buffer {
    std::string bytes;
    std::vector<Run> runs;
    int64_t num_code_points = 0;
  };
  std::shared_ptr<const Buffer> buffer_;  // null for ""
  bool markup_ = false;
};

class TextBuilder {
 public:
  TextBuilder& append(std::string_view utf8, TextOrigin origin);
  TextBuilder& append(const Text& text);
  TextBuilder& append(const Text& text, size_t begin, size_t end);  // bytes, on code point boundaries
  TextBuilder& append(char32_t code_point, TextOrigin origin);
  size_t size() const { return bytes_.size(); }
  Text build();  // leaves the builder empty

 private:
  std::string bytes_;
  std::vector<Text::Run> runs_;
};

}  // namespace octet::jinja
