// What a Tokenizer holds: the pipeline of a tokenizer.json in the order in which text goes through it. Included by
// tokenizer.cc only.
#pragma once

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/text/added_tokens.h"
#include "octet/text/bpe.h"
#include "octet/text/decoder.h"
#include "octet/text/normalizer.h"
#include "octet/text/post_processor.h"
#include "octet/text/pre_tokenizer.h"
#include "octet/text/tokenizer.h"

namespace octet {

struct Tokenizer::Model {
  Model(const nlohmann::json& root, const std::string& where);

  std::vector<int32_t> encode(const MarkedText& text, AddSpecialTokens add) const;
  void encode_words(MarkedText text, BpeWorkspace& workspace, std::vector<int32_t>& out) const;
  std::string_view spelling(int32_t id) const;

  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  AddedTokens added_tokens;
  SequenceFrame frame;
  Decoder decoder;
  int32_t vocab_size = 0;

  // One for each thread that encodes at the same time; lent out so that encoding itself takes no lock.
  std::unique_ptr<BpeWorkspace> borrow() const;
  void give_back(std::unique_ptr<BpeWorkspace> workspace) const;
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<BpeWorkspace>> workspaces;
};

}  // namespace octet
