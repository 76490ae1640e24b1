#include "octet/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "octet/base/error.h"
#include "octet/text/unicode_form.h"
#include "octet/text/unicode_ranges.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

uint8_t trust_of(const MarkedText& text, size_t begin, size_t end) {
  if (text.trusted.empty()) return 1;
  const auto first = text.trusted.begin();
  return std::all_of(first + static_cast<std::ptrdiff_t>(begin), first + static_cast<std::ptrdiff_t>(end),
                     [](uint8_t trust) { return trust != 0; });
}

// Where the replacements of one text go, with their marks.
class Rewriter {
 public:
  explicit Rewriter(const MarkedText& from) : from_(from) { out_.at_start = from.at_start; }

  void keep(size_t begin, size_t end) {
    out_.text.append(from_.text, begin, end - begin);
    if (from_.trusted.empty()) return;
    const auto first = from_.trusted.begin();
    out_.trusted.insert(out_.trusted.end(), first + static_cast<std::ptrdiff_t>(begin),
                        first + static_cast<std::ptrdiff_t>(end));
  }
  void put(std::string_view text, size_t begin, size_t end) {
    out_.text.append(text);
    if (!from_.trusted.empty()) out_.trusted.insert(out_.trusted.end(), text.size(), trust_of(from_, begin, end));
  }
  MarkedText take() { return std::move(out_); }

 private:
  const MarkedText& from_;
  MarkedText out_;
};

}  // namespace

void MarkedText::append(std::string_view piece, uint8_t trust) {
  text.append(piece);
  trusted.insert(trusted.end(), piece.size(), trust);
}

std::string component_type(const Json& json, const std::string& where) {
  return JsonObject(json, where).get_string("type");
}

PatternSource parse_pattern(const JsonObject& object) {
  const Json* pattern = object.find_raw("pattern");
  if (pattern == nullptr) fail(ErrorCode::kModel, "{}: pattern is missing", object.where());
  if (pattern->is_string()) return {.is_regex = false, .text = pattern->get<std::string>()};
  const JsonObject kinds(*pattern, object.where() + ".pattern");
  if (const auto text = kinds.find_string("String")) return {.is_regex = false, .text = *text};
  return {.is_regex = true, .text = kinds.get_string("Regex")};
}

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  size_t begin = 0;
  for (size_t at = text.find(pattern); at != std::string_view::npos && !pattern.empty();
       at = text.find(pattern, begin)) {
    out.append(text.substr(begin, at - begin)).append(content);
    begin = at + pattern.size();
  }
  return out.append(text.substr(begin));
}

Normalizer::Normalizer(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where);
}

void Normalizer::add(const Json& json, const std::string& where) {
  const std::string type = component_type(json, where);
  const JsonObject object(json, where + " (" + type + ")");
  if (type == "Sequence") {
    const Json* parts = object.find_raw("normalizers");
    if (parts == nullptr || !parts->is_array())
      fail(ErrorCode::kModel, "{}: normalizers: expected a list", object.where());
    for (const Json& part : *parts) add(part, where);
  } else if (type == "NFC") {
    steps_.emplace_back(Unicode{UnicodeForm::kNfc});
  } else if (type == "NFD") {
    steps_.emplace_back(Unicode{UnicodeForm::kNfd});
  } else if (type == "NFKC") {
    steps_.emplace_back(Unicode{UnicodeForm::kNfkc});
  } else if (type == "NFKD") {
    steps_.emplace_back(Unicode{UnicodeForm::kNfkd});
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{object.get_string("prepend")});
  } else if (type == "Replace") {
    PatternSource pattern = parse_pattern(object);
    std::string content = object.get_string("content");
    if (pattern.is_regex) {
      steps_.emplace_back(ReplaceRegex{.pattern = Regex(pattern.text, object.where()), .content = std::move(content)});
    } else {
      if (pattern.text.empty()) fail(ErrorCode::kModel, "{}: the pattern is empty", object.where());
      steps_.emplace_back(ReplaceString{.pattern = std::move(pattern.text), .content = std::move(content)});
    }
  } else if (type == "Lowercase") {
    steps_.emplace_back(Lowercase{});
  } else if (type == "Strip") {
    steps_.emplace_back(Strip{.left = object.find_bool("strip_left").value_or(true),
                              .right = object.find_bool("strip_right").value_or(true)});
  } else {
    fail(ErrorCode::kModel, "{}: normalizer type \"{}\" is not supported", where, type);
  }
}

void Normalizer::apply(MarkedText& text) const {
  for (const Step& step : steps_) {
    std::visit([&](const auto& kind) { run(kind, text); }, step);
  }
}

void Normalizer::run(const Unicode& step, MarkedText& text) {
  const std::string_view all = text.text;
  const auto unchanged = [&](size_t begin, size_t end) {
    const utf8::Decoded c = utf8::decode_at(all, begin);
    if (c.code_point < 0x80) return c.length == end - begin;
    return step.form == UnicodeForm::kNfc && c.length == end - begin && is_nfc_alone(c.code_point);
  };
  Rewriter out(text);
  std::string normal;
  size_t kept_from = 0;
  for (size_t begin = 0; begin < all.size();) {
    if (static_cast<unsigned char>(all[begin]) < 0x80 && begin + 1 < all.size() &&
        static_cast<unsigned char>(all[begin + 1]) < 0x80) {
      ++begin;
      continue;
    }
    const size_t end = normalization_boundary(all, begin);
    if (!unchanged(begin, end)) {
      out.keep(kept_from, begin);
      normal.clear();
      append_normal_form(normal, all.substr(begin, end - begin), step.form);
      out.put(normal, begin, end);
      kept_from = end;
    }
    begin = end;
  }
  if (kept_from == 0) return;
  out.keep(kept_from, all.size());
  text = out.take();
}

void Normalizer::run(const Prepend& step, MarkedText& text) {
  if (text.text.empty()) return;
  text.text.insert(0, step.text);
  if (!text.trusted.empty()) text.trusted.insert(text.trusted.begin(), step.text.size(), text.trusted.front());
}

void Normalizer::run(const ReplaceString& step, MarkedText& text) {
  Rewriter out(text);
  size_t begin = 0;
  for (size_t at = text.text.find(step.pattern); at != std::string::npos; at = text.text.find(step.pattern, begin)) {
    out.keep(begin, at);
    begin = at + step.pattern.size();
    out.put(step.content, at, begin);
  }
  if (begin == 0) return;
  out.keep(begin, text.text.size());
  text = out.take();
}

void Normalizer::run(const ReplaceRegex& step, MarkedText& text) {
  Rewriter out(text);
  size_t begin = 0;
  for (const TextRange& match : step.pattern.find_all(text.text)) {
    out.keep(begin, match.begin);
    out.put(step.content, match.begin, match.end);
    begin = match.end;
  }
  out.keep(begin, text.text.size());
  text = out.take();
}

void Normalizer::run(const Lowercase&, MarkedText& text) {
  Rewriter out(text);
  for (size_t i = 0; i < text.text.size();) {
    const utf8::Decoded c = utf8::decode_at(text.text, i);
    std::string lower;
    if (c.code_point == 0x130) {
      lower = "i\xCC\x87";  // the one character whose lower case is two
    } else {
      utf8::append(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.code_point))));
    }
    out.put(lower, i, i + c.length);
    i += c.length;
  }
  text = out.take();
}

void Normalizer::run(const Strip& step, MarkedText& text) {
  const auto is_white = [&](size_t at) {
    return unicode::contains(unicode::white_space(), utf8::decode_at(text.text, at).code_point);
  };
  size_t begin = 0;
  size_t end = text.text.size();
  while (step.left && begin < end && is_white(begin)) begin += utf8::decode_at(text.text, begin).length;
  while (step.right && end > begin) {
    size_t last = end - 1;
    while ((static_cast<unsigned char>(text.text[last]) & 0xC0) == 0x80) --last;
    if (!is_white(last)) break;
    end = last;
  }
  const bool at_start = text.at_start && begin == 0;
  Rewriter out(text);
  out.keep(begin, end);
  text = out.take();
  text.at_start = at_start;
}

}  // namespace octet
