// The mixtures of Qwen: Qwen2-MoE (many small experts and a shared one behind a gate, biases on q, k, v) and Qwen3-MoE
// (no shared expert, norms of q and k heads). Some layers may be dense. As in Hugging Face's modeling_qwen2_moe and
// modeling_qwen3_moe.
#include <algorithm>
#include <array>

#include "octet/base/error.h"
#include "octet/layers/self_attention.h"
#include "octet/layers/sparse_mlp.h"
#include "octet/models/decoder.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 2> kArchitectures = {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"};
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxWidth = int64_t{1} << 20;

bool is_qwen3(const ModelConfig& config) { return config.architecture == "Qwen3MoeForCausalLM"; }

SparseMlpOptions mixture_of(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  // transformers 5 writes what it calls num_local_experts in all mixtures.
  const char* count_key = json.find_raw("num_experts") ? "num_experts" : "num_local_experts";
  const bool renormalised = json.find_bool("norm_topk_prob").value_or(false);
  SparseMlpOptions options{
      .experts = {.hidden_size = config.hidden_size,
                  .intermediate_size = json.get_int_in("moe_intermediate_size", 1, kMaxWidth),
                  .num_experts = json.get_int_in(count_key, 1, kMaxExperts),
                  .count_key = count_key},
      .experts_per_token = json.get_int_in("num_experts_per_tok", 1, kMaxExperts),
      .routing = {.weights = renormalised ? ExpertRouting::Weights::kRenormalised : ExpertRouting::Weights::kAsScored},
      .slots_key = "num_experts_per_tok"};
  if (is_qwen3(config)) return options;
  options.shared_name = "shared_expert";
  options.shared_intermediate_size = json.get_int_in("shared_expert_intermediate_size", 1, kMaxWidth);
  options.shared_gate_name = "shared_expert_gate";
  return options;
}

// Which layers are mixtures: every decoder_sparse_step-th, but those of mlp_only_layers.
std::vector<bool> sparse_layers(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  const int64_t every = json.find_raw("decoder_sparse_step") ? json.get_int_in("decoder_sparse_step", 1, 4096) : 1;
  std::vector<bool> sparse;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) sparse.push_back((i + 1) % every == 0);
  const Json* dense = json.find_raw("mlp_only_layers");
  if (dense == nullptr) return sparse;
  if (!dense->is_array()) fail(ErrorCode::kModel, "{}: mlp_only_layers: expected a list of layers", config.path);
  for (const Json& layer : *dense) {
    if (!layer.is_number_integer() || layer < 0 || layer >= config.num_hidden_layers) {
      fail(ErrorCode::kModel, "{}: mlp_only_layers: expected layers from 0 to {}, found {}", config.path,
           config.num_hidden_layers - 1, layer.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60));
    }
    sparse[layer.get<size_t>()] = false;
  }
  return sparse;
}

SelfAttentionOptions attention_of(const ModelConfig& config, const HeadShard& heads) {
  const JsonObject json(config.json, config.path);
  SelfAttentionOptions options{.attention = {.heads = heads, .rms_norm_eps = config.rms_norm_eps}};
  if (is_qwen3(config)) {
    options.attention.head_norm = AttentionOptions::HeadNorm::kQueryAndKey;
    options.qkv_bias = options.o_bias = json.find_bool("attention_bias").value_or(false);
  } else {
    options.qkv_bias = json.find_bool("qkv_bias").value_or(true);
  }
  return options;
}

std::unique_ptr<Model> load_qwen_moe(const ModelConfig& config, const Weights& weights, const Backend&) {
  require_silu(config);
  if (config.sliding_window) {
    fail(ErrorCode::kUnsupported, "{}: use_sliding_window: {} has no sliding windows here, expected false", config.path,
         config.architecture);
  }
  const SparseMlpOptions mixture = mixture_of(config);
  const std::vector<bool> sparse = sparse_layers(config);
  const HeadShard heads = head_shard(config, weights.source().rank, weights.source().world_size);
  const auto attention = [&](const Weights& layer, int64_t, int64_t cache_layer) {
    SelfAttentionOptions options = attention_of(config, heads);
    options.attention.layer = cache_layer;
    return std::make_unique<SelfAttention>(config, layer, options);
  };
  const auto feed_forward = [&](const Weights& layer, int64_t index) -> std::unique_ptr<Sublayer> {
    if (sparse[static_cast<size_t>(index)]) return std::make_unique<SparseMlp>(config, layer, "mlp", mixture);
    return std::make_unique<Mlp>(
        layer, config.rms_norm_eps,
        MlpOptions{.hidden_size = config.hidden_size, .intermediate_size = config.intermediate_size});
  };
  return load_decoder(config, weights,
                      {.attention = attention, .feed_forward = feed_forward, .kv = kv_layout_of(heads)});
}

}  // namespace

extern const ModelArch k_qwen_moe;
const ModelArch k_qwen_moe{.architectures = kArchitectures, .load = load_qwen_moe};

}  // namespace octet
