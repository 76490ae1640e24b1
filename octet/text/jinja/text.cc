#include "octet/text/jinja/text.h"

#include <algorithm>

namespace octet::jinja {
namespace {

int64_t count_code_points(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char byte) { return (byte & 0xc0) != 0x80; });
}

// The length of the well-formed sequence at the start of `bytes`, or 0 with `bad` = the bytes to replace.
size_t well_formed(std::string_view bytes, size_t& bad) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  bad = 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i, ++bad) {
    if (i >= bytes.size()) return 0;
    unsigned low = 0x80, high = 0xbf;
    if (i == 1 && lead == 0xe0) low = 0xa0;
    if (i == 1 && lead == 0xed) high = 0x9f;
    if (i == 1 && lead == 0xf0) low = 0x90;
    if (i == 1 && lead == 0xf4) high = 0x8f;
    if (byte(i) < low || byte(i) > high) return 0;
  }
  return length;
}

}  // namespace

char32_t next_code_point(std::string_view utf8, size_t& at) {
  const size_t length = sequence_length(utf8[at]);
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(utf8[at + i])); };
  char32_t code = length == 1 ? byte(0) : byte(0) & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) code = code << 6 | (byte(i) & 0x3f);
  at += length;
  return code;
}

void append_code_point(std::string& utf8, char32_t code) {
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) code = 0xfffd;
  const auto put = [&](char32_t byte) { utf8.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6), put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 0x3f)), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
  }
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string valid;
  valid.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    size_t bad = 0;
    const size_t good = well_formed(bytes.substr(at), bad);
    if (good > 0) {
      valid.append(bytes.substr(at, good));
    } else {
      append_code_point(valid, 0xfffd);
    }
    at += good > 0 ? good : bad;
  }
  return valid;
}

TextOrigin combine(TextOrigin a, TextOrigin b) { return a == TextOrigin::kUser ? a : b; }

Text::Text(std::string_view utf8, TextOrigin origin) { *this = TextBuilder().append(utf8, origin).build(); }

const std::vector<Text::Run>& Text::runs() const {
  static const std::vector<Run> kNone;
  return buffer_ ? buffer_->runs : kNone;
}

bool Text::any_user() const {
  return std::any_of(runs().begin(), runs().end(), [](const Run& run) { return run.origin == TextOrigin::kUser; });
}

TextOrigin Text::origin_at(size_t byte) const {
  const auto run =
      std::upper_bound(runs().begin(), runs().end(), byte, [](size_t b, const Run& r) { return b < r.end; });
  return run == runs().end() ? TextOrigin::kUser : run->origin;
}

size_t Text::byte_of(int64_t index) const {
  const std::string_view all = bytes();
  if (index >= length()) return all.size();
  if (static_cast<size_t>(length()) == all.size()) return static_cast<size_t>(index);
  size_t at = 0;
  for (; index > 0; --index) at += sequence_length(all[at]);
  return at;
}

Text Text::slice_bytes(size_t begin, size_t end) const {
  if (begin == 0 && end == bytes().size()) return *this;
  Text slice = TextBuilder().append(*this, begin, end).build();
  slice.markup_ = markup_;
  return slice;
}

Text Text::at(int64_t index) const {
  const size_t begin = byte_of(index);
  return slice_bytes(begin, begin + sequence_length(bytes()[begin]));
}

Text Text::as_markup(bool markup) const {
  Text copy = *this;
  copy.markup_ = markup;
  return copy;
}

TextBuilder& TextBuilder::append(std::string_view utf8, TextOrigin origin) {
  if (utf8.empty()) return *this;
  bytes_.append(utf8);
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), origin});
  }
  return *this;
}

TextBuilder& TextBuilder::append(const Text& text) { return append(text, 0, text.bytes().size()); }

TextBuilder& TextBuilder::append(const Text& text, size_t begin, size_t end) {
  const std::string_view all = text.bytes();
  const auto& runs = text.runs();
  auto run =
      std::upper_bound(runs.begin(), runs.end(), begin, [](size_t byte, const Text::Run& r) { return byte < r.end; });
  for (; begin < end; ++run) {
    const size_t stop = std::min(run->end, end);
    append(all.substr(begin, stop - begin), run->origin);
    begin = stop;
  }
  return *this;
}

TextBuilder& TextBuilder::append(char32_t code_point, TextOrigin origin) {
  std::string utf8;
  append_code_point(utf8, code_point);
  return append(utf8, origin);
}

Text TextBuilder::build() {
  Text text;
  if (bytes_.empty()) return text;
  auto buffer = std::make_shared<Text::Buffer>();
  buffer->bytes = std::move(bytes_);
  buffer->runs = std::move(runs_);
  buffer->num_code_points = count_code_points(buffer->bytes);
  text.buffer_ = std::move(buffer);
  bytes_.clear();
  runs_.clear();
  return text;
}

}  // namespace octet::jinja
