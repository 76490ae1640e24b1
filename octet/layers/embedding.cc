#include "octet/layers/embedding.h"

namespace octet {

VocabShard vocab_shard(int64_t vocab_size, int rank, int world_size) {
  const int64_t count = (vocab_size + world_size - 1) / world_size;
  return VocabShard{.first = rank * count, .count = count};
}

Embedding::Embedding(const Weights& weights, int64_t vocab_size, int64_t hidden_size)
    : shard_(vocab_shard(vocab_size, weights.source().rank, weights.source().world_size)),
      table_(weights.parameter_rows("weight", Shape{vocab_size, hidden_size}, shard_.first, shard_.count,
                                    weights.source().plain_dtype)) {}

Tensor Embedding::operator()(Step& step) const {
  const Tensor out = step.make(Shape{step.batch.num_tokens(), table_.dim(1)});
  step.backend(EmbeddingOp{.out = out, .table = table_, .token_ids = step.batch.token_ids, .first_id = shard_.first});
  if (step.comm.world_size() > 1) step.backend(AllReduceOp{.x = out, .comm = &step.comm});
  return out;
}

}  // namespace octet
