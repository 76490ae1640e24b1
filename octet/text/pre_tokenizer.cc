#include "octet/text/pre_tokenizer.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/text/normalizer.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

SplitBehavior parse_behavior(const std::string& name, const std::string& where) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  fail(ErrorCode::kModel, "{}: behavior \"{}\" is not supported", where, name);
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where);
}

void PreTokenizer::add(const Json& json, const std::string& where) {
  const std::string type = component_type(json, where);
  const JsonObject object(json, where + " (" + type + ")");
  // From ByteLevel on the text is bytes spelled as other characters, which octet keeps as bytes.
  if (byte_level_) fail(ErrorCode::kModel, "{}: a pre-tokenizer after ByteLevel is not supported", object.where());
  if (type == "Sequence") {
    const Json* parts = object.find_raw("pretokenizers");
    if (parts == nullptr || !parts->is_array())
      fail(ErrorCode::kModel, "{}: pretokenizers: expected a list", object.where());
    for (const Json& part : *parts) add(part, where);
  } else if (type == "Split") {
    PatternSource source = parse_pattern(object);
    Split split{.pattern = std::string(),
                .behavior = parse_behavior(object.get_string("behavior"), object.where()),
                .invert = object.find_bool("invert").value_or(false)};
    if (source.is_regex) {
      split.pattern = Regex(source.text, object.where());
    } else {
      split.pattern = std::move(source.text);
    }
    steps_.emplace_back(std::move(split));
  } else if (type == "ByteLevel") {
    add_byte_level(object);
  } else if (type == "Digits") {
    const bool individual = object.find_bool("individual_digits").value_or(false);
    steps_.emplace_back(Split{.pattern = unicode::numeric(),
                              .behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                              .invert = false});
  } else if (type == "Punctuation") {
    steps_.emplace_back(
        Split{.pattern = unicode::punctuation(),
              .behavior = parse_behavior(object.find_string("behavior").value_or("Isolated"), object.where()),
              .invert = false});
  } else if (type == "Whitespace") {
    add(Json{{"type", "Split"}, {"pattern", {{"Regex", R"(\w+|[^\w\s]+)"}}}, {"behavior", "Removed"}, {"invert", true}},
        where);
  } else if (type == "WhitespaceSplit") {
    steps_.emplace_back(Split{.pattern = unicode::white_space(), .behavior = SplitBehavior::kRemoved, .invert = false});
  } else if (type == "Metaspace") {
    add_metaspace(object);
  } else {
    fail(ErrorCode::kModel, "{}: pre-tokenizer type \"{}\" is not supported", where, type);
  }
}

void PreTokenizer::add_byte_level(const JsonObject& object) {
  if (object.find_bool("add_prefix_space").value_or(true)) steps_.emplace_back(PrefixSpace{});
  if (object.find_bool("use_regex").value_or(true)) {
    steps_.emplace_back(Split{
        .pattern = Regex(kByteLevelPattern, object.where()), .behavior = SplitBehavior::kIsolated, .invert = false});
  }
  byte_level_ = true;
}

void PreTokenizer::add_metaspace(const JsonObject& object) {
  Metaspace step{.replacement = object.get_string("replacement"),
                 .prepend = Prepend::kAlways,
                 .split = object.find_bool("split").value_or(true)};
  if (step.replacement.empty() || utf8::decode_at(step.replacement, 0).length != step.replacement.size()) {
    fail(ErrorCode::kModel, "{}: replacement: expected one character, found \"{}\"", object.where(), step.replacement);
  }
  const std::string scheme = object.find_string("prepend_scheme").value_or("always");
  if (scheme == "first") {
    step.prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    step.prepend = Prepend::kNever;
  } else if (scheme != "always") {
    fail(ErrorCode::kModel, "{}: prepend_scheme \"{}\" is not supported", object.where(), scheme);
  }
  // The older spelling: without add_prefix_space nothing is put in front.
  if (!object.find_bool("add_prefix_space").value_or(true)) step.prepend = Prepend::kNever;
  steps_.emplace_back(std::move(step));
}

void PreTokenizer::apply(Words& words) const {
  for (const Step& step : steps_) {
    std::visit([&](const auto& kind) { run(kind, words); }, step);
  }
}

// The text as matches and the stretches between them, in order.
std::vector<PreTokenizer::Match> PreTokenizer::matches_in(const Split& split, std::string_view text) {
  std::vector<Match> out;
  size_t last = 0;
  const auto add = [&](TextRange match) {
    if (match.begin > last) out.push_back({{last, match.begin}, split.invert});
    out.push_back({match, !split.invert});
    last = match.end;
  };
  if (const auto* regex = std::get_if<Regex>(&split.pattern)) {
    const std::vector<TextRange> found = regex->find_all(text);
    out.reserve(found.size() + 1);
    for (const TextRange& match : found) add(match);
  } else if (const auto* string = std::get_if<std::string>(&split.pattern)) {
    for (size_t at = text.find(*string); at != std::string_view::npos && !string->empty();
         at = text.find(*string, last)) {
      add({at, at + string->size()});
    }
  } else {
    const unicode::Ranges ranges = std::get<unicode::Ranges>(split.pattern);
    for (size_t i = 0; i < text.size();) {
      const utf8::Decoded c = utf8::decode_at(text, i);
      if (unicode::contains(ranges, c.code_point)) add({i, i + c.length});
      i += c.length;
    }
  }
  if (last < text.size()) out.push_back({{last, text.size()}, split.invert});
  return out;
}

void PreTokenizer::cut(const Split& split, std::string_view text, size_t offset, std::vector<TextRange>& out) {
  const size_t first = out.size();
  std::vector<Match> matches = matches_in(split, text);
  const bool backward = split.behavior == SplitBehavior::kMergedWithNext;
  if (backward) std::reverse(matches.begin(), matches.end());
  bool previous = false;
  for (const Match& match : matches) {
    const TextRange range{.begin = offset + match.range.begin, .end = offset + match.range.end};
    bool join = false;
    switch (split.behavior) {
      case SplitBehavior::kRemoved:
        if (match.is_match) continue;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kContiguous:
        join = match.is_match == previous;
        break;
      case SplitBehavior::kMergedWithPrevious:
      case SplitBehavior::kMergedWithNext:
        join = match.is_match && !previous;
        break;
    }
    previous = match.is_match;
    if (!join || out.size() == first) {
      out.push_back(range);
    } else if (backward) {
      out.back().begin = range.begin;
    } else {
      out.back().end = range.end;
    }
  }
  if (backward) std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

void PreTokenizer::run(const Split& step, Words& words) {
  std::vector<TextRange> out;
  out.reserve(words.ranges.size() + words.text.size() / 4);
  const std::string_view text = words.text;
  for (const TextRange& word : words.ranges) cut(step, text.substr(word.begin, word.end - word.begin), word.begin, out);
  std::erase_if(out, [](const TextRange& range) { return range.begin == range.end; });
  // Metaspace after a Split that removes the start: no word begins where the input begins.
  if (words.at_start && !words.ranges.empty()) words.at_start = !out.empty() && out[0].begin == words.ranges[0].begin;
  words.ranges = std::move(out);
}

void PreTokenizer::run(const PrefixSpace&, Words& words) {
  Words out{.text = {}, .ranges = {}, .at_start = words.at_start};
  out.text.reserve(words.text.size() + words.ranges.size());
  for (const TextRange& word : words.ranges) {
    const size_t begin = out.text.size();
    if (words.text[word.begin] != ' ') out.text += ' ';
    out.text.append(words.text, word.begin, word.end - word.begin);
    out.ranges.push_back({begin, out.text.size()});
  }
  words = std::move(out);
}

void PreTokenizer::run(const Metaspace& step, Words& words) {
  Words out{.text = {}, .ranges = {}, .at_start = words.at_start};
  const Split at_replacement{.pattern = step.replacement, .behavior = SplitBehavior::kMergedWithNext, .invert = false};
  for (size_t i = 0; i < words.ranges.size(); ++i) {
    const TextRange& word = words.ranges[i];
    const std::string text =
        replace_all(std::string_view(words.text).substr(word.begin, word.end - word.begin), " ", step.replacement);
    const bool prepend =
        step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && i == 0 && words.at_start);
    const size_t begin = out.text.size();
    if (prepend && !text.starts_with(step.replacement)) out.text += step.replacement;
    out.text += text;
    if (step.split) {
      const std::string piece = out.text.substr(begin);
      cut(at_replacement, piece, begin, out.ranges);
    } else {
      out.ranges.push_back({begin, out.text.size()});
    }
  }
  words = std::move(out);
}

}  // namespace octet
