// Mixtral (Jiang et al. 2024): Mistral's decoder with 8 experts in place of the feed-forward network, two for each
// token, weighted by the softmax of their two logits; as in Hugging Face's modeling_mixtral.
#include <array>

#include "octet/layers/self_attention.h"
#include "octet/layers/sparse_mlp.h"
#include "octet/models/decoder.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 1> kArchitectures = {"MixtralForCausalLM"};
constexpr int64_t kMaxExperts = 4096;

SparseMlpOptions mixture_of(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  return {.experts = {.hidden_size = config.hidden_size,
                      .intermediate_size = config.intermediate_size,
                      .num_experts = json.get_int_in("num_local_experts", 1, kMaxExperts),
                      .count_key = "num_local_experts"},
          .experts_per_token = json.get_int_in("num_experts_per_tok", 1, kMaxExperts),
          .routing = {.weights = ExpertRouting::Weights::kRenormalised},
          .slots_key = "num_experts_per_tok"};
}

std::unique_ptr<Model> load_mixtral(const ModelConfig& config, const Weights& weights, const Backend&) {
  require_silu(config);
  const SparseMlpOptions mixture = mixture_of(config);
  const HeadShard heads = head_shard(config, weights.source().rank, weights.source().world_size);
  const int64_t window = config.sliding_window.value_or(0);
  const auto attention = [&](const Weights& layer, int64_t, int64_t cache_layer) {
    return std::make_unique<SelfAttention>(
        config, layer,
        SelfAttentionOptions{.attention = {.heads = heads, .layer = cache_layer, .sliding_window = window}});
  };
  const auto feed_forward = [&](const Weights& layer, int64_t) {
    // transformers 5 calls the mixture "mlp" in memory, and files that keep that name exist.
    const bool renamed = (layer / "block_sparse_moe").names().empty() && !(layer / "mlp").names().empty();
    return std::make_unique<SparseMlp>(config, layer, renamed ? "mlp" : "block_sparse_moe", mixture);
  };
  return load_decoder(
      config, weights,
      {.attention = attention, .feed_forward = feed_forward, .kv = kv_layout_of(heads), .window = [=](int64_t) {
         return window;
       }});
}

}  // namespace

extern const ModelArch k_mixtral;
const ModelArch k_mixtral{.architectures = kArchitectures, .load = load_mixtral};

}  // namespace octet
