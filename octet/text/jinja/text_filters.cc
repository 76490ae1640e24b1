// Filters that make texts.
#include <algorithm>

#include "octet/text/jinja/filter_rows.h"
#include "octet/text/jinja/format.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/text_operations.h"
#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

bool flag(const std::optional<Value>& value) { return value && truthy(*value); }
bool given(const std::optional<Value>& value) { return value && !value->is_none(); }

template <Text (*map)(const Text&)>
Value map_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  return map(to_text(run, subject));
}

// jinja2's own title: a word starts behind white space and -({[<.
Text title_words(const Text& text) {
  TextBuilder out;
  const std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t begin = at;
    bool starts = true;
    const auto separates = [&](size_t place) {
      const char32_t c = next_code_point(bytes, place);
      return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    };
    starts = !separates(begin);
    while (at < bytes.size() && separates(at) != starts) at += sequence_length(bytes[at]);
    const Text word = text.slice_bytes(begin, at);
    if (!starts) {
      out.append(word);
      continue;
    }
    const size_t head = sequence_length(word.bytes()[0]);
    out.append(upper(word.slice_bytes(0, head))).append(lower(word.slice_bytes(head, word.bytes().size())));
  }
  return out.build();
}

Value trim_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const auto characters = given(bound[0]) ? std::optional(need_text(*bound[0], "trim")) : std::nullopt;
  return strip(run, to_text(run, subject), Side::kBoth, characters);
}

Value string_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  return to_text(run, subject);
}

Value replace_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const auto count = given(bound[2]) ? std::optional(need_int64(*bound[2], "replace")) : std::nullopt;
  return replace(run, to_text(run, subject), to_text(run, *bound[0]), to_text(run, *bound[1]), count);
}

Value center_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  return pad(run, to_text(run, subject), bound[0] ? need_int64(*bound[0], "center") : 80, Side::kBoth,
             Text::trusted(" "));
}

Value indent_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  if (subject.is_undefined()) raise_undefined(subject);
  Text indention = Text::trusted("    ");
  if (bound[0]) {
    if (bound[0]->is_text()) {
      indention = bound[0]->text();
    } else {
      indention = pad(run, Text(), need_int64(*bound[0], "indent"), Side::kLeft, Text::trusted(" "));
    }
  }
  const Text text = TextBuilder().append(need_text(subject, "indent")).append("\n", TextOrigin::kTrusted).build();
  const std::vector<Text> lines = split_lines(run, text, LineEnds::kDrop);
  run.reserve_text(Integer(text.bytes().size()) + Integer(lines.size()) * Integer(indention.bytes().size()));
  TextBuilder out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n", TextOrigin::kTrusted);
    if (i == 0 ? flag(bound[1]) : flag(bound[2]) || !lines[i].empty()) out.append(indention);
    out.append(lines[i]);
  }
  return out.build();
}

Value escape_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  const Text text = to_text(run, subject);
  run.reserve_text(Integer(text.bytes().size()) * 5);
  return escape_html(subject, text);
}

Value force_escape_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  const Text text = to_text(run, subject).as_markup(false);
  run.reserve_text(Integer(text.bytes().size()) * 5);
  return escape_html(text, text);
}

Value safe_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  return to_text(run, subject).as_markup(true);
}

Value format_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    raise("format takes positional or keyword arguments, not both");
  Value values = run.make_tuple(arguments.positional);
  if (!arguments.named.empty()) {
    auto* dict = run.make<Dict>();
    for (const auto& [name, value] : arguments.named) dict->set(trusted(name), value);
    values = Value(dict);
  }
  return format_percent(run, to_text(run, subject), values);
}

Value wordcount_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  return count_words(to_text(run, subject));
}

Value truncate_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const Text text = to_text(run, subject);
  const int64_t limit = bound[0] ? need_int64(*bound[0], "truncate") : 255;
  const Text end = bound[2] ? need_text(*bound[2], "truncate") : Text::trusted("...");
  const int64_t leeway = given(bound[3]) ? need_int64(*bound[3], "truncate") : 5;
  if (limit < end.length()) raise("truncate: expected a length of at least {}, found {}", end.length(), limit);
  if (leeway < 0) raise("truncate: expected a leeway of at least 0, found {}", leeway);
  if (text.length() <= limit || text.length() - limit <= leeway) return text;
  Text head = text.slice_bytes(0, text.byte_of(limit - end.length()));
  if (!flag(bound[1])) {
    const size_t space = head.bytes().rfind(' ');
    if (space != std::string_view::npos) head = head.slice_bytes(0, space);
  }
  return TextBuilder().append(head).append(end).build();
}

Value urlencode_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  if (!subject.is_text() && is_iterable(subject) && !subject.is_undefined())
    raise("urlencode: only texts are supported");
  const Text text = to_text(run, subject);
  run.reserve_text(Integer(text.bytes().size()) * 3);
  TextBuilder out;
  for (size_t at = 0; at < text.bytes().size(); ++at) {
    const char c = text.bytes()[at];
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    out.append(plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c)), text.origin_at(at));
  }
  return out.build();
}

std::string separator_of(Interpreter& run, const Value& item) { return std::string(to_text(run, item).bytes()); }

Value tojson_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  JsonStyle style;
  style.ensure_ascii = flag(bound[0]);
  style.sort_keys = flag(bound[3]);
  if (given(bound[1])) {
    if (bound[1]->is_text()) {
      style.indent = std::string(bound[1]->text().bytes());
    } else {
      const int64_t width = need_int64(*bound[1], "tojson: indent");
      run.reserve_text(width);
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
    style.item_separator = ",";
  }
  if (given(bound[2])) {
    const std::vector<Value> separators = to_vector(run, *bound[2]);
    if (separators.size() != 2) raise("tojson: expected two separators, found {}", separators.size());
    need_text(separators[0], "tojson: separators"), need_text(separators[1], "tojson: separators");
    style.item_separator = separator_of(run, separators[0]);
    style.key_separator = separator_of(run, separators[1]);
  }
  return dump_json(run, subject, style);
}

Value join_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  std::vector<Text> parts;
  const auto next = iterate(run, subject);
  while (const auto item = next()) {
    parts.push_back(to_text(run, given(bound[1]) ? get_path(run, *item, bound[1]) : *item));
  }
  return join(run, bound[0] ? to_text(run, *bound[0]) : Text(), parts);
}

}  // namespace

const std::vector<Filter>& text_filters() {
  static const std::vector<Filter> kRows = {
      {"capitalize", "", map_filter<capitalize>},
      {"center", "width=?", center_filter},
      {"e", "", escape_filter},
      {"escape", "", escape_filter},
      {"forceescape", "", force_escape_filter},
      {"format", "*", format_filter},
      {"indent", "width=? first=? blank=?", indent_filter},
      {"join", "d=? attribute=?", join_filter},
      {"lower", "", map_filter<lower>},
      {"replace", "old new count=?", replace_filter},
      {"safe", "", safe_filter},
      {"string", "", string_filter},
      {"title", "", map_filter<title_words>},
      {"tojson", "ensure_ascii=? indent=? separators=? sort_keys=?", tojson_filter},
      {"trim", "chars=?", trim_filter},
      {"truncate", "length=? killwords=? end=? leeway=?", truncate_filter},
      {"upper", "", map_filter<upper>},
      {"urlencode", "", urlencode_filter},
      {"wordcount", "", wordcount_filter},
  };
  return kRows;
}

}  // namespace octet::jinja
