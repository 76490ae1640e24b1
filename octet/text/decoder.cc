#include "octet/text/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "octet/base/error.h"
#include "octet/text/byte_alphabet.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "<0x0A>" as its byte.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = token[3] == '+' ? 0 : hex_value(token[3]);  // Rust reads "+A" as a number
  const int low = hex_value(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

std::string bytes_of(std::string_view token) { return byte_alphabet::to_bytes(token).value_or(std::string(token)); }

std::string replaced(const std::variant<std::string, Regex>& pattern, std::string_view content,
                     std::string_view token) {
  if (const auto* text = std::get_if<std::string>(&pattern)) return replace_all(token, *text, content);
  std::string out;
  size_t begin = 0;
  for (const TextRange& match : std::get<Regex>(pattern).find_all(token)) {
    out.append(token.substr(begin, match.begin - begin)).append(content);
    begin = match.end;
  }
  return out.append(token.substr(begin));
}

// `token` without up to `start` leading and `stop` trailing `content` characters.
std::string stripped(std::string_view token, std::string_view content, size_t start, size_t stop) {
  for (size_t i = 0; i < start && token.starts_with(content); ++i) token.remove_prefix(content.size());
  for (size_t i = 0; i < stop && token.ends_with(content); ++i) token.remove_suffix(content.size());
  return std::string(token);
}

size_t get_count(const JsonObject& object, std::string_view key) {
  return static_cast<size_t>(object.get_int_in(key, 0, 1 << 16));
}

std::string get_character(const JsonObject& object, std::string_view key) {
  std::string text = object.get_string(key);
  if (text.empty() || utf8::decode_at(text, 0).length != text.size()) {
    fail(ErrorCode::kModel, "{}: {}: expected one character, found \"{}\"", object.where(), key, text);
  }
  return text;
}

}  // namespace

Decoder::Decoder(const Json& json, const std::string& where) {
  if (json.is_null()) {
    steps_.emplace_back(JoinBySpace{});
  } else {
    add(json, where);
  }
}

void Decoder::add(const Json& json, const std::string& where) {
  const std::string type = component_type(json, where);
  const JsonObject object(json, where + " (" + type + ")");
  if (type == "Sequence") {
    const Json* parts = object.find_raw("decoders");
    if (parts == nullptr || !parts->is_array())
      fail(ErrorCode::kModel, "{}: decoders: expected a list", object.where());
    for (const Json& part : *parts) add(part, where);
    return;
  }
  // After Fuse or ByteLevel there is one text; its end is not known while it streams.
  if (joined_ && type != "Strip" && type != "Fuse") {
    fail(ErrorCode::kModel, "{}: after Fuse or ByteLevel is not supported", object.where());
  }
  if (type == "Replace") {
    PatternSource source = parse_pattern(object);
    Replace step{.pattern = std::string(), .content = object.get_string("content")};
    if (source.is_regex) {
      step.pattern = Regex(source.text, object.where());
    } else {
      step.pattern = std::move(source.text);
    }
    steps_.emplace_back(std::move(step));
  } else if (type == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    steps_.emplace_back(Fuse{});
    joined_ = true;
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
    joined_ = true;
  } else if (type == "Strip") {
    steps_.emplace_back(Strip{.content = get_character(object, "content"),
                              .start = get_count(object, "start"),
                              .stop = get_count(object, "stop"),
                              .joined = joined_});
  } else if (type == "Metaspace") {
    const bool never = object.find_string("prepend_scheme").value_or("always") == "never" ||
                       !object.find_bool("add_prefix_space").value_or(true);
    steps_.emplace_back(Metaspace{.replacement = get_character(object, "replacement"), .drops_first = !never});
  } else {
    fail(ErrorCode::kModel, "{}: decoder type \"{}\" is not supported", where, type);
  }
}

std::string Decoder::token_bytes(std::string_view token) const {
  std::string text(token);
  for (const Step& step : steps_) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      text = replaced(replace->pattern, replace->content, text);
    } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
      text = replace_all(text, metaspace->replacement, " ");
    } else if (std::holds_alternative<ByteFallback>(step)) {
      if (const auto byte = fallback_byte(text)) return std::string(1, *byte);
    } else if (std::holds_alternative<ByteLevel>(step)) {
      return bytes_of(text);
    }
  }
  return text;
}

DecodeStream::DecodeStream(const Decoder& decoder) : decoder_(decoder), states_(decoder.steps_.size()) {}

void DecodeStream::push(std::string_view token) { run(0, std::string(token)); }

void DecodeStream::finish() { end(0); }

bool DecodeStream::holds_back() const {
  return std::any_of(states_.begin(), states_.end(), [](const State& state) { return !state.held.empty(); });
}

void DecodeStream::forget() {
  for (size_t i = 0; i < states_.size(); ++i) {
    const Decoder::Step& step = decoder_.steps_[i];
    const bool holds_bytes =
        std::holds_alternative<Decoder::ByteFallback>(step) || std::holds_alternative<Decoder::ByteLevel>(step);
    if (holds_bytes) states_[i].held.erase(0, utf8::valid_prefix(states_[i].held));
    if (std::holds_alternative<Decoder::Strip>(step)) states_[i].held.clear();
  }
  out_.clear();
}

void DecodeStream::run(size_t index, std::string token) {
  if (index == states_.size()) {
    out_ += token;
    return;
  }
  const Decoder::Step& step = decoder_.steps_[index];
  State& state = states_[index];
  if (const auto* replace = std::get_if<Decoder::Replace>(&step)) {
    run(index + 1, replaced(replace->pattern, replace->content, token));
  } else if (std::holds_alternative<Decoder::ByteFallback>(step)) {
    if (const auto byte = fallback_byte(token)) {
      state.held.push_back(*byte);
    } else {
      end_bytes(index);
      run(index + 1, std::move(token));
    }
  } else if (std::holds_alternative<Decoder::ByteLevel>(step)) {
    push_byte_level(index, token);
  } else if (const auto* metaspace = std::get_if<Decoder::Metaspace>(&step)) {
    const bool first = state.seen++ == 0;
    run(index + 1, replace_all(token, metaspace->replacement, first && metaspace->drops_first ? "" : " "));
  } else if (const auto* strip = std::get_if<Decoder::Strip>(&step)) {
    push_strip(index, *strip, std::move(token));
  } else if (std::holds_alternative<Decoder::JoinBySpace>(step)) {
    run(index + 1, state.seen++ == 0 ? std::move(token) : " " + token);
  } else {
    run(index + 1, std::move(token));  // Fuse: the next steps see one text, which arrives in pieces
  }
}

// A run of byte tokens is characters only when all of it is: one bad byte turns each of its bytes into U+FFFD, as in
// Hugging Face's ByteFallback. So nothing of a run is certain before it ends.
void DecodeStream::end_bytes(size_t index) {
  const std::string bytes = std::exchange(states_[index].held, {});
  if (bytes.empty()) return;
  if (utf8::is_valid(bytes)) return run(index + 1, bytes);
  for (size_t i = 0; i < bytes.size(); ++i) run(index + 1, std::string(utf8::kReplacement));
}

void DecodeStream::push_byte_level(size_t index, std::string_view token) {
  std::string& held = states_[index].held;
  held += bytes_of(token);
  std::string ready;
  std::string_view rest = held;
  while (!rest.empty()) {
    const size_t good = utf8::valid_prefix(rest);
    ready.append(rest.substr(0, good));
    rest.remove_prefix(good);
    if (rest.empty()) break;
    const utf8::Piece piece = utf8::piece_at(rest, 0);
    if (piece.form == utf8::Form::kIncomplete) break;
    ready.append(utf8::kReplacement);
    rest.remove_prefix(piece.length);
  }
  held = std::string(rest);
  if (!ready.empty()) run(index + 1, std::move(ready));
}

void DecodeStream::push_strip(size_t index, const Decoder::Strip& strip, std::string token) {
  if (!strip.joined) return run(index + 1, stripped(token, strip.content, strip.start, strip.stop));
  State& state = states_[index];
  std::string_view rest = token;
  while (!state.started && !rest.empty()) {
    state.started = state.stripped == strip.start || !rest.starts_with(strip.content);
    if (state.started) break;
    rest.remove_prefix(strip.content.size());
    ++state.stripped;
  }
  // Trailing `content` characters wait: the last `stop` of them may be the end of the text.
  state.held += rest;
  size_t waiting = 0;
  std::string_view certain = state.held;
  while (waiting < strip.stop && certain.ends_with(strip.content)) {
    certain.remove_suffix(strip.content.size());
    ++waiting;
  }
  std::string ready(certain);
  state.held.erase(0, certain.size());
  if (!ready.empty()) run(index + 1, std::move(ready));
}

void DecodeStream::end(size_t index) {
  if (index == states_.size()) return;
  const Decoder::Step& step = decoder_.steps_[index];
  if (std::holds_alternative<Decoder::ByteFallback>(step)) {
    end_bytes(index);
  } else if (std::holds_alternative<Decoder::ByteLevel>(step)) {
    const std::string rest = std::exchange(states_[index].held, {});
    if (!rest.empty()) run(index + 1, utf8::repair_lossy(rest));
  } else {
    states_[index].held.clear();  // Strip's: the end of the text, at most `stop` characters
  }
  end(index + 1);
}

}  // namespace octet
