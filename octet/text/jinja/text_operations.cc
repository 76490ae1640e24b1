#include "octet/text/jinja/text_operations.h"

#include <algorithm>

#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

size_t previous(std::string_view utf8, size_t at) {
  do --at;
  while ((utf8[at] & 0xc0) == 0x80);
  return at;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

std::vector<Text> split_white_space(const Text& text, int64_t max_splits) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> parts;
  size_t at = 0;
  const auto skip = [&](bool spaces) {
    while (at < bytes.size()) {
      size_t next = at;
      if (is_space(next_code_point(bytes, next)) != spaces) return;
      at = next;
    }
  };
  while (true) {
    skip(true);
    if (at >= bytes.size()) return parts;
    const size_t begin = at;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text.slice_bytes(begin, bytes.size()));
      return parts;
    }
    skip(false);
    parts.push_back(text.slice_bytes(begin, at));
  }
}

std::vector<Text> split_white_space_right(const Text& text, int64_t max_splits) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> parts;
  size_t at = bytes.size();
  const auto skip = [&](bool spaces) {
    while (at > 0) {
      const size_t before = previous(bytes, at);
      size_t next = before;
      if (is_space(next_code_point(bytes, next)) != spaces) return;
      at = before;
    }
  };
  while (true) {
    skip(true);
    if (at == 0) break;
    const size_t end = at;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text.slice_bytes(0, end));
      break;
    }
    skip(false);
    parts.push_back(text.slice_bytes(at, end));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

Text strip(Runtime& runtime, const Text& text, Side side, const std::optional<Text>& characters) {
  std::vector<char32_t> set;
  if (characters) {
    for (size_t at = 0; at < characters->bytes().size();) set.push_back(next_code_point(characters->bytes(), at));
    std::sort(set.begin(), set.end());
  }
  const std::string_view bytes = text.bytes();
  runtime.spend_bytes(bytes.size());
  const auto stripped = [&](size_t at) {
    const char32_t c = next_code_point(bytes, at);
    return characters ? std::binary_search(set.begin(), set.end(), c) : is_space(c);
  };
  size_t begin = 0, end = bytes.size();
  if (side != Side::kRight) {
    while (begin < end && stripped(begin)) begin += sequence_length(bytes[begin]);
  }
  if (side != Side::kLeft) {
    while (end > begin && stripped(previous(bytes, end))) end = previous(bytes, end);
  }
  return text.slice_bytes(begin, end);
}

Text replace(Runtime& runtime, const Text& text, const Text& from, const Text& to, std::optional<int64_t> max_count) {
  const std::string_view bytes = text.bytes();
  std::vector<size_t> places;
  const auto wanted = [&] { return !max_count || *max_count < 0 || static_cast<int64_t>(places.size()) < *max_count; };
  if (from.empty()) {  // between all characters
    for (size_t at = 0; wanted(); at += sequence_length(bytes[at])) {
      places.push_back(at);
      if (at >= bytes.size()) break;
    }
  } else {
    for (size_t at = bytes.find(from.bytes()); at != std::string_view::npos && wanted();) {
      places.push_back(at);
      at = bytes.find(from.bytes(), at + from.bytes().size());
    }
  }
  runtime.reserve_text(Integer(bytes.size()) + Integer(places.size()) * Integer(to.bytes().size()));
  runtime.spend(static_cast<int64_t>(places.size()));
  if (places.empty()) return text;
  TextBuilder out;
  size_t at = 0;
  for (const size_t place : places) {
    out.append(text, at, place).append(to);
    at = place + from.bytes().size();
  }
  return out.append(text, at, bytes.size()).build();
}

std::vector<Text> split(Runtime& runtime, const Text& text, const std::optional<Text>& separator, int64_t max_splits) {
  runtime.spend_bytes(text.bytes().size());
  std::vector<Text> parts;
  if (!separator) {
    parts = split_white_space(text, max_splits);
  } else {
    if (separator->empty()) raise("split: empty separator");
    size_t at = 0;
    while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
      const size_t found = text.bytes().find(separator->bytes(), at);
      if (found == std::string_view::npos) break;
      parts.push_back(text.slice_bytes(at, found));
      at = found + separator->bytes().size();
    }
    parts.push_back(text.slice_bytes(at, text.bytes().size()));
  }
  runtime.spend(static_cast<int64_t>(parts.size()));
  return parts;
}

std::vector<Text> split_right(Runtime& runtime, const Text& text, const std::optional<Text>& separator,
                              int64_t max_splits) {
  runtime.spend_bytes(text.bytes().size());
  std::vector<Text> parts;
  if (!separator) {
    parts = split_white_space_right(text, max_splits);
  } else {
    if (separator->empty()) raise("rsplit: empty separator");
    size_t end = text.bytes().size();
    const size_t width = separator->bytes().size();
    while (end >= width && (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits)) {
      const size_t found = text.bytes().rfind(separator->bytes(), end - width);
      if (found == std::string_view::npos) break;
      parts.push_back(text.slice_bytes(found + width, end));
      end = found;
    }
    parts.push_back(text.slice_bytes(0, end));
    std::reverse(parts.begin(), parts.end());
  }
  runtime.spend(static_cast<int64_t>(parts.size()));
  return parts;
}

std::vector<Text> split_lines(Runtime& runtime, const Text& text, LineEnds ends) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = at;
    const char32_t c = next_code_point(bytes, at);
    if (!is_line_end(c)) continue;
    if (c == '\r' && at < bytes.size() && bytes[at] == '\n') ++at;
    lines.push_back(text.slice_bytes(begin, ends == LineEnds::kKeep ? at : end));
    begin = at;
  }
  if (begin < bytes.size()) lines.push_back(text.slice_bytes(begin, bytes.size()));
  runtime.spend(static_cast<int64_t>(lines.size()));
  runtime.spend_bytes(bytes.size());
  return lines;
}

Text join(Runtime& runtime, const Text& separator, const std::vector<Text>& parts) {
  Integer bytes = Integer(separator.bytes().size()) * Integer(parts.size());
  for (const Text& part : parts) bytes += Integer(part.bytes().size());
  runtime.reserve_text(bytes);
  TextBuilder out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out.append(separator);
    out.append(parts[i]);
  }
  return out.build();
}

Text pad(Runtime& runtime, const Text& text, int64_t width, Side side, const Text& fill) {
  if (fill.length() != 1) raise("the fill character must be exactly one character long");
  const int64_t missing = width - text.length();
  if (missing <= 0) return text;
  runtime.reserve_text(Integer(text.bytes().size()) + Integer(missing) * 4);
  // str.center puts the odd one on the left where the width is odd
  const int64_t left = side == Side::kLeft ? missing : side == Side::kRight ? 0 : missing / 2 + (missing & width & 1);
  TextBuilder out;
  for (int64_t i = 0; i < left; ++i) out.append(fill);
  out.append(text);
  for (int64_t i = left; i < missing; ++i) out.append(fill);
  return out.build();
}

int64_t count_words(const Text& text) {
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.bytes().size();) {
    const bool word = is_word(next_code_point(text.bytes(), at));
    words += word && !inside;
    inside = word;
  }
  return words;
}

}  // namespace octet::jinja
