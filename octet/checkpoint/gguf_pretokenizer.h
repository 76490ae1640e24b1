// What tokenizer.json needs and a GGUF file only names: normalizer, pre-tokenizer and decoder.
#pragma once

#include <string_view>

#include "octet/base/json.h"

namespace octet {

struct GgufPreTokenizer {
  Json normalizer;
  Json pre_tokenizer;
  Json decoder;
  bool ignore_merges = false;
  bool add_bos = false;  // unless the file says
};

// `name`: tokenizer.ggml.pre. Throws Error{kUnsupported} naming it and the known ones.
GgufPreTokenizer byte_level_pre_tokenizer(std::string_view name, std::string_view path);

// SentencePiece: spaces become U+2581; with `add_space_prefix` each stretch of text gets one in front.
GgufPreTokenizer sentencepiece_pre_tokenizer(bool add_space_prefix);

}  // namespace octet
