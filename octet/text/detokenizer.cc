#include "octet/text/detokenizer.h"

#include "octet/text/decoder.h"

namespace octet {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, SpecialTokens special, std::vector<int32_t> prompt_tail)
    : tokenizer_(tokenizer), special_(special), stream_(std::make_unique<DecodeStream>(tokenizer.new_stream())) {
  for (const int32_t id : prompt_tail) tokenizer_.push(*stream_, id, special_);
  stream_->forget();
}

Detokenizer::~Detokenizer() = default;
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;

std::optional<std::string> Detokenizer::push(int32_t token_id) {
  tokenizer_.push(*stream_, token_id, special_);
  std::string text = stream_->take();
  if (text.empty() && stream_->holds_back()) return std::nullopt;
  return text;
}

std::string Detokenizer::finish() {
  stream_->finish();
  return stream_->take();
}

}  // namespace octet
