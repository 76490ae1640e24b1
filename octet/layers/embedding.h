// Token embedding, split over ranks along the vocabulary. Every rank holds ceil(V / world) rows, the last ones padded
// with zeros.
#pragma once

#include "octet/checkpoint/weights.h"
#include "octet/layers/step.h"

namespace octet {

// The rows of a vocabulary that one rank holds.
struct VocabShard {
  int64_t first = 0;
  int64_t count = 0;  // the same on every rank
};
VocabShard vocab_shard(int64_t vocab_size, int rank, int world_size);

class Embedding {
 public:
  // weights: the cursor of the module, whose "weight" is [vocab_size, hidden_size].
  Embedding(const Weights& weights, int64_t vocab_size, int64_t hidden_size);

  // [T, hidden_size] of the batch's tokens.
  Tensor operator()(Step& step) const;
  // [rows of this rank, hidden_size], for an LmHead tied to it.
  ConstTensor table() const { return table_; }

 private:
  VocabShard shard_;
  Tensor table_;
};

}  // namespace octet
