// The Llama family: pre-norm decoders with rotary, grouped-query attention and a gated MLP. Touvron et al. 2023
// (Llama), Jiang et al. 2023 (Mistral: sliding window), Qwen2 (biases on q, k, v), Qwen3 (norms of q and k heads); as
// in Hugging Face's modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3.
#include <array>
#include <string>

#include "octet/base/error.h"
#include "octet/layers/mlp.h"
#include "octet/layers/self_attention.h"
#include "octet/models/decoder.h"

namespace octet {
namespace {

// What the members of the family differ in.
struct Variant {
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  AttentionOptions::HeadNorm head_norm = AttentionOptions::HeadNorm::kNone;
};

Variant variant_of(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  const bool attention_bias = json.find_bool("attention_bias").value_or(false);
  if (config.architecture == "LlamaForCausalLM") {
    return Variant{
        .qkv_bias = attention_bias, .o_bias = attention_bias, .mlp_bias = json.find_bool("mlp_bias").value_or(false)};
  }
  if (config.architecture == "Qwen2ForCausalLM") return Variant{.qkv_bias = true};
  if (config.architecture == "Qwen3ForCausalLM") {
    return Variant{
        .qkv_bias = attention_bias, .o_bias = attention_bias, .head_norm = AttentionOptions::HeadNorm::kQueryAndKey};
  }
  return Variant{};  // Mistral
}

// The sliding window of a layer, 0 for none. Qwen slides from layer max_window_layers on; layer_types says it layer by
// layer.
int64_t window_of(const ModelConfig& config, int64_t layer) {
  if (!config.sliding_window) return 0;
  const JsonObject json(config.json, config.path);
  const Json* types = json.find_raw("layer_types");
  if (types != nullptr && types->is_array()) {
    if (static_cast<int64_t>(types->size()) != config.num_hidden_layers) {
      fail(ErrorCode::kModel, "{}: layer_types: {} entries for {} layers", config.path, types->size(),
           config.num_hidden_layers);
    }
    return types->at(static_cast<size_t>(layer)) == "sliding_attention" ? *config.sliding_window : 0;
  }
  const bool qwen = config.architecture.starts_with("Qwen");
  const int64_t first = qwen ? json.find_int("max_window_layers").value_or(28) : 0;
  return layer >= first ? *config.sliding_window : 0;
}

constexpr std::array<std::string_view, 4> kArchitectures = {"LlamaForCausalLM", "MistralForCausalLM",
                                                            "Qwen2ForCausalLM", "Qwen3ForCausalLM"};

std::unique_ptr<Model> load_llama(const ModelConfig& config, const Weights& weights, const Backend&) {
  require_silu(config);
  const Variant variant = variant_of(config);
  const HeadShard heads = head_shard(config, weights.source().rank, weights.source().world_size);
  const auto attention = [&](const Weights& layer, int64_t index, int64_t cache_layer) {
    return std::make_unique<SelfAttention>(
        config, layer,
        SelfAttentionOptions{.attention = {.heads = heads,
                                           .layer = cache_layer,
                                           .sliding_window = window_of(config, index),
                                           .rms_norm_eps = config.rms_norm_eps,
                                           .head_norm = variant.head_norm},
                             .qkv_bias = variant.qkv_bias,
                             .o_bias = variant.o_bias});
  };
  const auto feed_forward = [&](const Weights& layer, int64_t) {
    return std::make_unique<Mlp>(layer, config.rms_norm_eps,
                                 MlpOptions{.hidden_size = config.hidden_size,
                                            .intermediate_size = config.intermediate_size,
                                            .bias = variant.mlp_bias});
  };
  return load_decoder(
      config, weights,
      {.attention = attention, .feed_forward = feed_forward, .kv = kv_layout_of(heads), .window = [&](int64_t layer) {
         return window_of(config, layer);
       }});
}

}  // namespace

extern const ModelArch k_llama;
const ModelArch k_llama{.architectures = kArchitectures, .load = load_llama};

}  // namespace octet
