// The output projection to the vocabulary: split over ranks along N, gathered afterwards. Shares the embedding's table
// when the checkpoint ties them; in FP8 when the user asks for it.
#pragma once

#include <optional>

#include "octet/layers/embedding.h"
#include "octet/layers/linear.h"

namespace octet {

class LmHead {
 public:
  // weights: the model's root cursor; the module is "lm_head". `tied_name`: the embedding whose table it shares in the
  // checkpoint ("model.embed_tokens"), empty for none. `embedding`: the model's, or nullptr for a stage without one.
  LmHead(const Weights& weights, int64_t vocab_size, int64_t hidden_size, const Embedding* embedding,
         const std::string& tied_name);

  // Logits f32 [R, vocab_size] of hidden_rows [R, hidden_size], the same on every rank; with several ranks its rows may
  // be strided (a padded vocabulary).
  Tensor operator()(Step& step, ConstTensor hidden_rows) const;
  int64_t scratch_bytes(int64_t num_rows) const;  // at most, in the arena, the logits included
  // nullptr when the embedding's table is used.
  const ColumnLinear* linear() const { return linear_ ? &*linear_ : nullptr; }

 private:
  int64_t vocab_size_;
  int64_t hidden_size_;
  int world_size_;
  VocabShard shard_;
  ConstTensor table_;                   // of the tied embedding
  std::optional<ColumnLinear> linear_;  // otherwise
};

}  // namespace octet
