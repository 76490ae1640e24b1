// The tokenizer inside a GGUF file, as the files that Hugging Face's `tokenizers` and `transformers` read.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "octet/base/json.h"
#include "octet/checkpoint/gguf_metadata.h"

namespace octet {

struct GgufTokenizer {
  Json tokenizer;                      // tokenizer.json
  Json tokenizer_config;               // tokenizer_config.json, with the chat template
  int64_t num_tokens = 0;              // of the GGUF vocabulary, unused ones included: the rows of the embedding
  int64_t bos_token_id = -1;           // -1: none
  std::vector<int64_t> eos_token_ids;  // end of sequence, then end of turn and of message where the file names them
};

// tokenizer.ggml.model "gpt2" (byte-level BPE; the pre-tokenizer by the name in tokenizer.ggml.pre) and "llama"
// (SentencePiece BPE; merges rebuilt from the scores). Throws Error{kUnsupported} naming another model or
// pre-tokenizer, Error{kModel} for lists that do not fit together.
GgufTokenizer tokenizer_from_gguf(const GgufMetadata& metadata);

// Merges of a SentencePiece BPE vocabulary as Hugging Face's converter makes them: every split of every piece into two
// pieces, by falling score of the whole, then by falling lengths (in code points) of left and right.
// `is_piece[i]`: whether pieces[i] takes part (control tokens do not).
struct ScoredPieces {
  const std::vector<std::string>& pieces;
  const std::vector<double>& scores;
  const std::vector<bool>& is_piece;
};
std::vector<std::pair<std::string, std::string>> merges_from_scores(const ScoredPieces& vocabulary);

}  // namespace octet
