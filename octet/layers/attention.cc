#include "octet/layers/attention.h"

#include <cmath>

#include "octet/base/error.h"

namespace octet {

HeadShard head_shard(const ModelConfig& config, int rank, int world_size) {
  const int64_t heads = config.num_attention_heads;
  const int64_t kv_heads = config.num_key_value_heads;
  const bool divides = kv_heads >= world_size ? kv_heads % world_size == 0 : world_size % kv_heads == 0;
  if (heads % world_size != 0 || !divides) {
    fail(ErrorCode::kUnsupported, "{}: {} query heads and {} key-value heads cannot be split over {} ranks",
         config.path, heads, kv_heads, world_size);
  }
  HeadShard shard{.head_dim = config.head_dim, .num_heads = heads / world_size};
  shard.first_head = rank * shard.num_heads;
  shard.first_kv_head = rank * kv_heads / world_size;
  shard.num_kv_heads = std::max<int64_t>(1, kv_heads / world_size);
  return shard;
}

Attention::Attention(const Weights& weights, const AttentionOptions& options) : options_(options) {
  if (options.head_norm == AttentionOptions::HeadNorm::kNone) return;
  const Shape shape{options.heads.head_dim};
  q_norm_ = (weights / "q_norm").parameter("weight", shape, DType::kF32);
  k_norm_ = (weights / "k_norm").parameter("weight", shape, DType::kF32);
}

Activation Attention::operator()(Step& step, const RopeAngles& angles, Tensor qkv, const Linear& consumer) const {
  const HeadShard& heads = options_.heads;
  const KvCache& kv = step.kv;
  const Tensor q = qkv.columns(0, heads.num_heads * heads.head_dim);
  const RopeKvOp rope{.q_out = q,
                      .k_cache = kv.k(options_.layer),
                      .v_cache = kv.v(options_.layer),
                      .qkv = qkv,
                      .cos = angles.cos,
                      .sin = angles.sin,
                      .slot_mapping = step.batch.slot_mapping,
                      .q_norm = q_norm_,
                      .k_norm = k_norm_,
                      .norm_epsilon = static_cast<float>(options_.rms_norm_eps),
                      .k_scale = kv.k_scale(options_.layer),
                      .v_scale = kv.v_scale(options_.layer),
                      .k_head_scale = kv.k_head_scale(options_.layer),
                      .v_head_scale = kv.v_head_scale(options_.layer)};
  const QuantTensor result = consumer.make_input(step, qkv.dim(0));
  const Arena::Scope scope(step.arena);
  const bool quantized = result.format.quantized();
  const PagedAttentionOp attention{
      .out = quantized ? step.make(q.shape) : result.data,
      .quantized = quantized ? result : QuantTensor(),
      .q = q,
      .k_cache = rope.k_cache,
      .v_cache = rope.v_cache,
      .query_start = step.batch.query_start,
      .seq_lens = step.batch.seq_lens,
      .block_table = step.batch.block_table,
      .softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads.head_dim))),
      .k_scale = rope.k_scale,
      .v_scale = rope.v_scale,
      .k_head_scale = rope.k_head_scale,
      .v_head_scale = rope.v_head_scale,
      .sliding_window = options_.sliding_window};
  step.backend(RopeAttentionOp{.rope = rope, .attention = attention});
  return result;
}

int64_t Attention::scratch_bytes(int64_t num_tokens) const {
  return arena_bytes(num_tokens * options_.heads.num_heads * options_.heads.head_dim);
}

}  // namespace octet
