#include "octet/layers/lm_head.h"

namespace octet {

LmHead::LmHead(const Weights& weights, int64_t vocab_size, int64_t hidden_size, const Embedding* embedding,
               const std::string& tied_name)
    : vocab_size_(vocab_size),
      hidden_size_(hidden_size),
      world_size_(weights.source().world_size),
      shard_(vocab_shard(vocab_size, weights.source().rank, world_size_)) {
  const bool quantised = weights.source().quant->scheme_for("lm_head").in_memory->weight_format().quantized();
  if (embedding != nullptr && !tied_name.empty() && !quantised) {
    table_ = embedding->table();
    return;
  }
  const LinearPart part{
      .name = "lm_head", .n = vocab_size, .first_n = shard_.first, .local_n = shard_.count, .stored_as = tied_name};
  linear_.emplace(weights, LinearRequest{.parts = {part}, .k = hidden_size, .shard = Shard::kColumn});
}

Tensor LmHead::operator()(Step& step, ConstTensor hidden_rows) const {
  const int64_t rows = hidden_rows.dim(0);
  const Tensor all = step.arena.make(DType::kF32, Shape{rows, world_size_ * shard_.count});
  const Arena::Scope scope(step.arena);
  const Tensor local = world_size_ == 1 ? all : step.arena.make(DType::kF32, Shape{rows, shard_.count});
  if (!linear_) {
    step.backend(MatmulOp{.out = local, .x = ConstQuantTensor(hidden_rows), .weight = ConstQuantTensor(table_)});
  } else {
    linear_->multiply_into(step, linear_->input_of(step, hidden_rows), local);
  }
  if (world_size_ > 1) step.backend(AllGatherOp{.out = all, .part = local, .comm = &step.comm});
  return all.columns(0, vocab_size_);
}

int64_t LmHead::scratch_bytes(int64_t num_rows) const {
  const int64_t local = world_size_ == 1 ? 0 : arena_bytes(num_rows * shard_.count);
  return arena_bytes(num_rows * world_size_ * shard_.count) + local + arena_bytes(num_rows * hidden_size_) +
         arena_bytes(num_rows);
}

}  // namespace octet
