// The methods of str.
#include "octet/text/jinja/format.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/method_rows.h"
#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/text_operations.h"
#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

std::optional<Text> optional_text(const std::optional<Value>& value, std::string_view what) {
  if (!value || value->is_none()) return std::nullopt;
  return need_text(*value, what);
}

int64_t integer_or(const std::optional<Value>& value, int64_t otherwise, std::string_view what) {
  return value ? need_int64(*value, what) : otherwise;
}

Value list_of(Interpreter& run, const std::vector<Text>& parts, TextOrigin origin) {
  return run.make_list(std::vector<Value>(parts.begin(), parts.end())).with_origin(origin);
}

// The bytes [begin, end) that optional start and end arguments (code points, negative from the end) select; nothing if
// start lies behind the text's end.
struct Part {
  size_t begin, end;
};
std::optional<Part> part_of(const Text& text, const std::optional<Value>& start, const std::optional<Value>& stop) {
  const auto place = [&](const std::optional<Value>& value, int64_t otherwise) {
    if (!value || value->is_none()) return otherwise;
    const Integer index = need_integer(*value, "index");
    const Integer from_start = index < 0 ? std::max<Integer>(index + text.length(), 0) : index;
    return static_cast<int64_t>(std::min<Integer>(from_start, Integer{text.length()} + 1));
  };
  const int64_t begin = place(start, 0), end = std::min(place(stop, text.length()), text.length());
  if (begin > text.length() || begin > end) return std::nullopt;
  return Part{text.byte_of(begin), text.byte_of(end)};
}

int64_t find_in(const Text& text, const Bound& bound, Side side) {
  const std::string_view wanted = need_text(*bound[0], "find").bytes();
  const auto part = part_of(text, bound[1], bound[2]);
  if (!part) return -1;
  const std::string_view searched = text.bytes().substr(part->begin, part->end - part->begin);
  const size_t found = side == Side::kLeft ? searched.find(wanted) : searched.rfind(wanted);
  if (found == std::string_view::npos) return -1;
  return text.slice_bytes(0, part->begin + found).length();
}

template <Side side>
Value find_method_of(Interpreter&, const Value& self, const Bound& bound, const Arguments&) {
  return find_in(self.text(), bound, side);
}

template <Side side>
Value index_method(Interpreter&, const Value& self, const Bound& bound, const Arguments&) {
  const int64_t found = find_in(self.text(), bound, side);
  if (found < 0) raise("substring not found");
  return found;
}

Value count_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const Text& wanted = need_text(*bound[0], "count");
  const auto part = part_of(self.text(), bound[1], bound[2]);
  if (!part) return 0;
  const Text searched = self.text().slice_bytes(part->begin, part->end);
  if (wanted.empty()) return searched.length() + 1;
  return static_cast<int64_t>(split(run, searched, wanted, -1).size()) - 1;
}

template <Side side>
Value starts_or_ends(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const auto part = part_of(self.text(), bound[1], bound[2]);
  if (!part) return false;
  const std::string_view searched = self.text().bytes().substr(part->begin, part->end - part->begin);
  const auto matches = [&](const Value& affix) {
    const std::string_view bytes = need_text(affix, side == Side::kLeft ? "startswith" : "endswith").bytes();
    return side == Side::kLeft ? searched.starts_with(bytes) : searched.ends_with(bytes);
  };
  const auto* tuple = bound[0]->as<Sequence>();
  if (!tuple || tuple->type != SequenceType::kTuple) return matches(*bound[0]);
  run.spend(static_cast<int64_t>(tuple->items.size()));
  return std::any_of(tuple->items.begin(), tuple->items.end(), matches);
}

template <Side side>
Value strip_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  return strip(run, self.text(), side, optional_text(bound[0], "strip"));
}

Value replace_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  return replace(run, self.text(), need_text(*bound[0], "replace"), need_text(*bound[1], "replace"),
                 integer_or(bound[2], -1, "replace"));
}

Value split_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  return list_of(run, split(run, self.text(), optional_text(bound[0], "split"), integer_or(bound[1], -1, "split")),
                 self.origin());
}

Value rsplit_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  return list_of(run,
                 split_right(run, self.text(), optional_text(bound[0], "rsplit"), integer_or(bound[1], -1, "rsplit")),
                 self.origin());
}

Value splitlines_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const LineEnds ends = bound[0] && truthy(*bound[0]) ? LineEnds::kKeep : LineEnds::kDrop;
  return list_of(run, split_lines(run, self.text(), ends), self.origin());
}

template <Side side>
Value partition_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const Text& text = self.text();
  const Text& separator = need_text(*bound[0], "partition");
  if (separator.empty()) raise("partition: empty separator");
  const size_t found =
      side == Side::kLeft ? text.bytes().find(separator.bytes()) : text.bytes().rfind(separator.bytes());
  std::vector<Value> parts;
  if (found == std::string_view::npos) {
    parts = {Text(), Text(), Text()};
    parts[side == Side::kLeft ? 0 : 2] = text;
  } else {
    const size_t behind = found + separator.bytes().size();
    parts = {text.slice_bytes(0, found), text.slice_bytes(found, behind),
             text.slice_bytes(behind, text.bytes().size())};
  }
  return run.make_tuple(std::move(parts)).with_origin(self.origin());
}

Value join_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  std::vector<Text> parts;
  for (const Value& item : to_vector(run, *bound[0])) parts.push_back(need_text(item, "join"));
  return join(run, self.text(), parts);
}

template <Text (*map)(const Text&)>
Value map_method(Interpreter&, const Value& self, const Bound&, const Arguments&) {
  return map(self.text());
}

Value removeprefix_method(Interpreter&, const Value& self, const Bound& bound, const Arguments&) {
  const std::string_view prefix = need_text(*bound[0], "removeprefix").bytes();
  const std::string_view bytes = self.text().bytes();
  return bytes.starts_with(prefix) ? self.text().slice_bytes(prefix.size(), bytes.size()) : self.text();
}

Value removesuffix_method(Interpreter&, const Value& self, const Bound& bound, const Arguments&) {
  const std::string_view suffix = need_text(*bound[0], "removesuffix").bytes();
  const std::string_view bytes = self.text().bytes();
  return bytes.ends_with(suffix) ? self.text().slice_bytes(0, bytes.size() - suffix.size()) : self.text();
}

// The padding stands on the other side than str.ljust's name says.
template <Side side>
Value pad_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  return pad(run, self.text(), need_int64(*bound[0], "width"), side,
             bound[1] ? need_text(*bound[1], "fill") : Text::trusted(" "));
}

Value zfill_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const Text& text = self.text();
  const size_t sign = text.bytes().starts_with("-") || text.bytes().starts_with("+") ? 1 : 0;
  const Text digits = pad(run, text.slice_bytes(sign, text.bytes().size()),
                          need_int64(*bound[0], "zfill") - static_cast<int64_t>(sign), Side::kLeft, Text::trusted("0"));
  return TextBuilder().append(text, 0, sign).append(digits).build();
}

Value format_method(Interpreter& run, const Value& self, const Bound&, const Arguments& arguments) {
  return format_braces(run, self.text(), arguments);
}

template <bool (*is)(char32_t)>
Value all_method(Interpreter&, const Value& self, const Bound&, const Arguments&) {
  const std::string_view bytes = self.text().bytes();
  for (size_t at = 0; at < bytes.size();) {
    if (!is(next_code_point(bytes, at))) return false;
  }
  return !bytes.empty();
}

bool is_alphanumeric(char32_t c) { return is_alpha(c) || is_numeric(c); }
bool is_ascii(char32_t c) { return c < 0x80; }

Value isascii_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments& arguments) {
  return self.text().empty() || truthy(all_method<is_ascii>(run, self, bound, arguments));
}

Value isprintable_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments& arguments) {
  return self.text().empty() || truthy(all_method<is_printable>(run, self, bound, arguments));
}

Value istitle_method(Interpreter&, const Value& self, const Bound&, const Arguments&) {
  bool any = false, after_cased = false;
  for (size_t at = 0; at < self.text().bytes().size();) {
    const char32_t c = next_code_point(self.text().bytes(), at);
    if (is_upper(c) ? after_cased : is_lower(c) && !after_cased) return false;
    after_cased = is_upper(c) || is_lower(c);
    any = any || after_cased;
  }
  return any;
}

Value isidentifier_method(Interpreter&, const Value& self, const Bound&, const Arguments&) {
  const std::string_view bytes = self.text().bytes();
  for (size_t at = 0; at < bytes.size();) {
    const bool first = at == 0;
    const char32_t c = next_code_point(bytes, at);
    if (c != '_' && !is_alpha(c) && (first || !is_decimal(c))) return false;
  }
  return !bytes.empty();
}

template <bool (*is)(char32_t), bool (*is_not)(char32_t)>
Value case_method(Interpreter&, const Value& self, const Bound&, const Arguments&) {
  return has_case(self.text(), is, is_not);
}

}  // namespace

bool has_case(const Text& text, bool (*is)(char32_t), bool (*is_not)(char32_t)) {
  bool any = false;
  for (size_t at = 0; at < text.bytes().size();) {
    const char32_t c = next_code_point(text.bytes(), at);
    if (is_not(c)) return false;
    any = any || is(c);
  }
  return any;
}

const std::vector<MethodRow>& str_methods() {
  static const std::vector<MethodRow> kRows = {
      {"capitalize", "", map_method<capitalize>},
      {"casefold", "", map_method<lower>},
      {"center", "_width _fill=?", pad_method<Side::kBoth>},
      {"count", "_sub _start=? _end=?", count_method},
      {"endswith", "_suffix _start=? _end=?", starts_or_ends<Side::kRight>},
      {"find", "_sub _start=? _end=?", find_method_of<Side::kLeft>},
      {"format", "*", format_method},
      {"index", "_sub _start=? _end=?", index_method<Side::kLeft>},
      {"isalnum", "", all_method<is_alphanumeric>},
      {"isalpha", "", all_method<is_alpha>},
      {"isascii", "", isascii_method},
      {"isdecimal", "", all_method<is_decimal>},
      {"isdigit", "", all_method<is_digit>},
      {"isidentifier", "", isidentifier_method},
      {"islower", "", case_method<is_lower, is_upper>},
      {"isnumeric", "", all_method<is_numeric>},
      {"isprintable", "", isprintable_method},
      {"isspace", "", all_method<is_space>},
      {"istitle", "", istitle_method},
      {"isupper", "", case_method<is_upper, is_lower>},
      {"join", "_iterable", join_method},
      {"ljust", "_width _fill=?", pad_method<Side::kRight>},
      {"lower", "", map_method<lower>},
      {"lstrip", "_chars=?", strip_method<Side::kLeft>},
      {"partition", "_sep", partition_method<Side::kLeft>},
      {"removeprefix", "_prefix", removeprefix_method},
      {"removesuffix", "_suffix", removesuffix_method},
      {"replace", "_old _new _count=?", replace_method},
      {"rfind", "_sub _start=? _end=?", find_method_of<Side::kRight>},
      {"rindex", "_sub _start=? _end=?", index_method<Side::kRight>},
      {"rjust", "_width _fill=?", pad_method<Side::kLeft>},
      {"rpartition", "_sep", partition_method<Side::kRight>},
      {"rsplit", "sep=? maxsplit=?", rsplit_method},
      {"rstrip", "_chars=?", strip_method<Side::kRight>},
      {"split", "sep=? maxsplit=?", split_method},
      {"splitlines", "keepends=?", splitlines_method},
      {"startswith", "_prefix _start=? _end=?", starts_or_ends<Side::kLeft>},
      {"strip", "_chars=?", strip_method<Side::kBoth>},
      {"swapcase", "", map_method<swap_case>},
      {"title", "", map_method<title>},
      {"upper", "", map_method<upper>},
      {"zfill", "_width", zfill_method},
  };
  return kRows;
}

}  // namespace octet::jinja
