// Streaming decode of one token stream: text comes out as soon as it is certain, never a broken character, and all pieces
// together equal Tokenizer::decode of all ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/text/tokenizer.h"

namespace octet {

class Detokenizer {
 public:
  // `tokenizer` must outlive this. `prompt_tail`: the last ids of the prompt (at most a handful are needed), so that a
  // leading space of the first generated token is kept; their text is not emitted.
  Detokenizer(const Tokenizer& tokenizer, SpecialTokens special, std::vector<int32_t> prompt_tail = {});

  // Adds one id. Nothing when the text is held back (the characters are not complete yet); may be empty.
  std::optional<std::string> push(int32_t token_id);
  // What is still held back, with incomplete characters as U+FFFD. Ends the stream.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  SpecialTokens special_;
  std::vector<int32_t> token_ids_;
  size_t prefix_offset_ = 0;  // ids before this only give context
  size_t read_offset_ = 0;    // ids before this have been emitted
};

}  // namespace octet
