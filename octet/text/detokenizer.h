// Streaming decode of one token stream: text comes out as soon as it is certain, never a broken character, and all
// pieces together equal Tokenizer::decode of all ids.
#pragma once

#include <cstdint>
#include <memory>
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
  ~Detokenizer();
  Detokenizer(Detokenizer&&) noexcept;

  // Adds one id. Nothing when the text is held back: characters are not complete, or (SentencePiece's byte tokens) a
  // run of bytes has not ended, of which one bad byte would change all. May be empty. Constant time. Ids outside the
  // vocabulary throw Error{kInvalid}.
  std::optional<std::string> push(int32_t token_id);
  // What is still held back, with incomplete characters as U+FFFD. Ends the stream.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  SpecialTokens special_;
  std::unique_ptr<DecodeStream> stream_;
};

}  // namespace octet
