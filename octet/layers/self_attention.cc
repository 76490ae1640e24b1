#include "octet/layers/self_attention.h"

namespace octet {
namespace {

LinearRequest qkv_request(const ModelConfig& config, const HeadShard& heads, bool bias) {
  const int64_t d = heads.head_dim;
  const int64_t n = config.num_attention_heads * d;
  const int64_t kv_n = config.num_key_value_heads * d;
  const LinearPart q{.name = "q_proj", .n = n, .first_n = heads.first_head * d, .local_n = heads.num_heads * d};
  LinearPart k{.name = "k_proj", .n = kv_n, .first_n = heads.first_kv_head * d, .local_n = heads.num_kv_heads * d};
  LinearPart v = k;
  v.name = "v_proj";
  return LinearRequest{.parts = {q, k, v}, .k = config.hidden_size, .shard = Shard::kColumn, .bias = bias};
}

}  // namespace

LinearRequest row_request(const std::string& name, int64_t hidden_size, int64_t k, bool bias) {
  const LinearPart part{.name = name, .n = hidden_size, .local_n = hidden_size};
  return LinearRequest{.parts = {part}, .k = k, .shard = Shard::kRow, .bias = bias};
}

SelfAttention::SelfAttention(const ModelConfig& config, const Weights& weights, const SelfAttentionOptions& options)
    : Sublayer(RmsNorm(weights / "input_layernorm", config.hidden_size, config.rms_norm_eps)),
      qkv_proj_(weights / "self_attn", qkv_request(config, options.attention.heads, options.qkv_bias)),
      attention_(weights / "self_attn", options.attention),
      o_proj_(weights / "self_attn",
              row_request("o_proj", config.hidden_size, config.num_attention_heads * config.head_dim, options.o_bias)) {
}

void SelfAttention::operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const {
  const Arena::Scope scope(step.arena);
  const Activation h = norm()(step, x, residual, qkv_proj_);
  o_proj_(step, attention_(step, angles, qkv_proj_(step, h), o_proj_), x);
}

int64_t SelfAttention::scratch_bytes(int64_t t) const {
  return qkv_proj_.input_bytes(t) + qkv_proj_.output_bytes(t) + attention_.scratch_bytes(t) + o_proj_.input_bytes(t) +
         o_proj_.scratch_bytes(t);
}

void SelfAttention::describe(std::vector<LinearRow>& rows) const {
  rows.push_back(qkv_proj_.row());
  rows.push_back(o_proj_.row());
}

}  // namespace octet
