// The added tokens of a tokenizer.json: whole strings ("<|im_end|>") that are found in the text before anything else.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/text/bpe.h"
#include "octet/text/normalizer.h"
#include "octet/text/regex.h"

namespace octet {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;  // looked for in normalised text
  bool single_word = false;
  bool lstrip = false;  // takes the white space in front of it along
  bool rstrip = false;
};

// A stretch of text: one added token or text between them.
struct Stretch {
  std::optional<int32_t> token_id;
  TextRange range;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `json` is the member "added_tokens". Throws Error{kModel}.
  AddedTokens(const Json& json, const Bpe& bpe, const Normalizer& normalizer, const std::string& where);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(int32_t id) const;

  // Tokens with `normalized` are found by the second, on normalised text, the others by the first.
  std::vector<Stretch> split_raw(const MarkedText& text) const { return split(raw_, text); }
  std::vector<Stretch> split_normalized(const MarkedText& text) const { return split(normalized_, text); }

 private:
  struct Node {
    std::vector<std::pair<uint8_t, uint32_t>> children;
    int32_t token = -1;  // index into tokens_
  };
  struct Trie {
    std::vector<Node> nodes = std::vector<Node>(1);
    std::array<bool, 256> starts{};
  };

  void insert(Trie& trie, std::string_view pattern, size_t token);
  struct Found {
    int32_t token = -1;
    size_t end = 0;
  };
  Found longest_at(const Trie& trie, const MarkedText& text, size_t position) const;
  std::vector<Stretch> split(const Trie& trie, const MarkedText& text) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::pair<int32_t, size_t>> by_id_;  // sorted
  Trie raw_;
  Trie normalized_;
};

}  // namespace octet
