#include "octet/text/added_tokens.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/text/unicode_ranges.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr size_t kMaxContent = 4096;  // bounds the work at one position of a text

AddedToken parse_token(const Json& json, const std::string& where) {
  const JsonObject object(json, where);
  AddedToken token{.id = static_cast<int32_t>(object.get_int_in("id", 0, kMaxTokenId)),
                   .content = object.get_string("content"),
                   .special = object.find_bool("special").value_or(false),
                   .single_word = object.find_bool("single_word").value_or(false),
                   .lstrip = object.find_bool("lstrip").value_or(false),
                   .rstrip = object.find_bool("rstrip").value_or(false)};
  token.normalized = object.find_bool("normalized").value_or(!token.special);
  if (token.content.size() > kMaxContent) fail(ErrorCode::kModel, "{}: longer than {} bytes", where, kMaxContent);
  return token;
}

size_t start_of_last(std::string_view text) {
  size_t at = text.size() - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && unicode::contains(unicode::word_of_whitespace(), utf8::decode_at(text, 0).code_point);
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && starts_with_word(text.substr(start_of_last(text)));
}

bool is_white(std::string_view text, size_t at) {
  return unicode::contains(unicode::white_space(), utf8::decode_at(text, at).code_point);
}

// Where the white space at the end of `text` begins.
size_t white_from(std::string_view text) {
  while (!text.empty() && is_white(text, start_of_last(text))) text = text.substr(0, start_of_last(text));
  return text.size();
}

size_t white_at_start(std::string_view text) {
  size_t end = 0;
  while (end < text.size() && is_white(text, end)) end += utf8::decode_at(text, end).length;
  return end;
}

}  // namespace

AddedTokens::AddedTokens(const Json& json, const Bpe& bpe, const Normalizer& normalizer, const std::string& where) {
  if (json.is_null()) return;
  if (!json.is_array()) fail(ErrorCode::kModel, "{}: expected a list", where);
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", where, i);
    AddedToken token = parse_token(json[i], place);
    if (token.content.empty()) continue;
    const std::optional<int32_t> in_vocab = bpe.token_to_id(token.content);
    if (in_vocab && *in_vocab != token.id) {
      fail(ErrorCode::kModel, "{}: \"{}\" has id {}, the vocabulary says {}", place, token.content, token.id,
           *in_vocab);
    }
    if (!in_vocab && !bpe.id_to_token(token.id).empty()) {
      fail(ErrorCode::kModel, "{}: \"{}\" and \"{}\" have the same id {}", place, token.content,
           bpe.id_to_token(token.id), token.id);
    }
    by_id_.emplace_back(token.id, tokens_.size());
    tokens_.push_back(std::move(token));
  }
  std::sort(by_id_.begin(), by_id_.end());
  for (size_t i = 1; i < by_id_.size(); ++i) {
    if (by_id_[i - 1].first != by_id_[i].first) continue;
    fail(ErrorCode::kModel, "{}: \"{}\" and \"{}\" have the same id {}", where, tokens_[by_id_[i - 1].second].content,
         tokens_[by_id_[i].second].content, by_id_[i].first);
  }
  // Special ones first: of two equal patterns the first one wins.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].special != special) continue;
      MarkedText pattern{.text = tokens_[i].content, .trusted = {}, .at_start = true};
      if (tokens_[i].normalized) normalizer.apply(pattern);
      insert(tokens_[i].normalized ? normalized_ : raw_, pattern.text, i);
    }
  }
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = std::lower_bound(by_id_.begin(), by_id_.end(), std::pair<int32_t, size_t>(id, 0));
  return found == by_id_.end() || found->first != id ? nullptr : &tokens_[found->second];
}

void AddedTokens::insert(Trie& trie, std::string_view pattern, size_t token) {
  if (pattern.empty()) return;
  trie.starts[static_cast<uint8_t>(pattern[0])] = true;
  uint32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<uint8_t>(c);
    auto& children = trie.nodes[node].children;
    const auto found =
        std::find_if(children.begin(), children.end(), [&](const auto& child) { return child.first == byte; });
    if (found != children.end()) {
      node = found->second;
    } else {
      const auto next = static_cast<uint32_t>(trie.nodes.size());
      children.emplace_back(byte, next);
      trie.nodes.emplace_back();
      node = next;
    }
  }
  if (trie.nodes[node].token < 0) trie.nodes[node].token = static_cast<int32_t>(token);
}

// The longest token at `position`; a special one only where every byte is trusted.
AddedTokens::Found AddedTokens::longest_at(const Trie& trie, const MarkedText& text, size_t position) const {
  Found found;
  uint32_t node = 0;
  bool trusted = true;
  for (size_t i = position; i < text.text.size(); ++i) {
    trusted = trusted && (text.trusted.empty() || text.trusted[i] != 0);
    const auto byte = static_cast<uint8_t>(text.text[i]);
    const auto& children = trie.nodes[node].children;
    const auto child = std::find_if(children.begin(), children.end(), [&](const auto& c) { return c.first == byte; });
    if (child == children.end()) break;
    node = child->second;
    const int32_t token = trie.nodes[node].token;
    if (token >= 0 && (trusted || !tokens_[static_cast<size_t>(token)].special)) found = {.token = token, .end = i + 1};
  }
  return found;
}

std::vector<Stretch> AddedTokens::split(const Trie& trie, const MarkedText& marked) const {
  const std::string_view text = marked.text;
  std::vector<Stretch> out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (!trie.starts[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const Found found = longest_at(trie, marked, at);
    if (found.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found.token)];
    size_t begin = at;
    size_t end = found.end;
    at = found.end;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip) begin = std::max(white_from(text.substr(0, begin)), done);
    if (token.rstrip) end += white_at_start(text.substr(end));
    if (done < begin) out.push_back({.token_id = std::nullopt, .range = {done, begin}});
    out.push_back({.token_id = token.id, .range = {begin, end}});
    done = end;
  }
  if (done != text.size()) out.push_back({.token_id = std::nullopt, .range = {done, text.size()}});
  return out;
}

}  // namespace octet
