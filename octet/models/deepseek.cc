// DeepSeek-V2 and V3 (DeepSeek-AI 2024): multi-head latent attention, a few dense layers and then mixtures of many
// small experts with shared ones. V3 chooses experts by sigmoids that a bias corrects, in groups; its layers for
// predicting several tokens at once are passed over. As in Hugging Face's modeling_deepseek_v2 and
// modeling_deepseek_v3.
#include <array>
#include <charconv>
#include <cmath>

#include "octet/base/error.h"
#include "octet/layers/latent_attention.h"
#include "octet/layers/sparse_mlp.h"
#include "octet/models/decoder.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 2> kArchitectures = {"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"};
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxWidth = int64_t{1} << 20;

bool is_v3(const ModelConfig& config) { return config.architecture == "DeepseekV3ForCausalLM"; }

int64_t int_or(const JsonObject& json, std::string_view key, int64_t low, int64_t high, int64_t otherwise) {
  return json.find_raw(key) ? json.get_int_in(key, low, high) : otherwise;
}

// 0.1 m ln(factor) + 1, squared: what yarn multiplies the scores by where mscale_all_dim is given.
double yarn_factor(const ModelConfig& config) {
  if (!config.rope_scaling.is_object()) return 1.0;
  const JsonObject scaling(config.rope_scaling, config.path + ": rope_scaling");
  const double all_dim = scaling.find_number("mscale_all_dim").value_or(0.0);
  const double factor = scaling.find_number("factor").value_or(1.0);
  if (all_dim == 0.0 || !(factor > 1.0)) return 1.0;
  const double mscale = 0.1 * all_dim * std::log(factor) + 1.0;
  return mscale * mscale;
}

LatentAttentionOptions attention_of(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  LatentAttentionOptions options{.num_heads = config.num_attention_heads,
                                 .q_lora_rank = int_or(json, "q_lora_rank", 1, kMaxWidth, 0),
                                 .kv_lora_rank = json.get_int_in("kv_lora_rank", 1, kMaxWidth),
                                 .qk_nope_head_dim = json.get_int_in("qk_nope_head_dim", 1, kMaxWidth),
                                 .qk_rope_head_dim = json.get_int_in("qk_rope_head_dim", 2, kMaxWidth),
                                 .v_head_dim = json.get_int_in("v_head_dim", 1, kMaxWidth),
                                 .bias = json.find_bool("attention_bias").value_or(false)};
  if (options.qk_rope_head_dim % 2 != 0)
    fail(ErrorCode::kModel, "{}: qk_rope_head_dim {} is odd", config.path, options.qk_rope_head_dim);
  if (options.bias && options.q_lora_rank == 0) {
    fail(ErrorCode::kUnsupported, "{}: attention_bias without q_lora_rank is not supported, expected false",
         config.path);
  }
  if (is_v3(config) && !json.find_bool("rope_interleave").value_or(true)) options.pairs = LatentKvOp::Pairs::kHalves;
  options.softmax_scale = static_cast<float>(yarn_factor(config) / std::sqrt(static_cast<double>(options.query_dim())));
  return options;
}

ExpertRouting routing_of(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  ExpertRouting routing{.num_groups = int_or(json, "n_group", 1, kMaxExperts, 1),
                        .scaling_factor = static_cast<float>(json.find_number("routed_scaling_factor").value_or(1.0))};
  routing.num_chosen_groups = int_or(json, "topk_group", 1, kMaxExperts, routing.num_groups);
  const bool renormalised = json.find_bool("norm_topk_prob").value_or(is_v3(config));
  if (is_v3(config)) {
    routing.scoring = ExpertRouting::Scoring::kSigmoid;
    routing.group_score = ExpertRouting::GroupScore::kTwoLargest;
    if (renormalised) routing.weights = ExpertRouting::Weights::kRenormalised;
    return routing;
  }
  const std::string method = json.find_string("topk_method").value_or("greedy");
  if (method != "greedy" && method != "group_limited_greedy") {
    fail(ErrorCode::kUnsupported, "{}: topk_method \"{}\" is not supported, expected greedy or group_limited_greedy",
         config.path, method);
  }
  if (renormalised)
    fail(ErrorCode::kUnsupported, "{}: norm_topk_prob: {} has it false", config.path, config.architecture);
  if (method == "greedy") routing.num_groups = routing.num_chosen_groups = 1;
  return routing;
}

SparseMlpOptions mixture_of(const ModelConfig& config) {
  const JsonObject json(config.json, config.path);
  const int64_t intermediate = json.get_int_in("moe_intermediate_size", 1, kMaxWidth);
  return {.experts = {.hidden_size = config.hidden_size,
                      .intermediate_size = intermediate,
                      .num_experts = json.get_int_in("n_routed_experts", 1, kMaxExperts),
                      .count_key = "n_routed_experts"},
          .experts_per_token = json.get_int_in("num_experts_per_tok", 1, kMaxExperts),
          .routing = routing_of(config),
          .slots_key = "num_experts_per_tok",
          .has_correction = is_v3(config),
          .shared_name = "shared_experts",
          .shared_intermediate_size = intermediate * int_or(json, "n_shared_experts", 0, kMaxExperts, 0)};
}

// "model.layers.<n>..." of the layers behind the model's own, which predict further tokens.
bool is_draft_layer(std::string_view name, int64_t num_layers) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return false;
  int64_t layer = 0;
  const auto [after, error] = std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  return error == std::errc() && layer >= num_layers;
}

void require_latent_attention(const ModelConfig& config, const Backend& backend) {
  if (!backend.table().of<LatentKvOp>().empty()) return;
  fail(ErrorCode::kUnsupported, "{}: {}: latent attention has no kernels on {} yet; device \"cpu\" runs it",
       config.path, config.architecture, device_name(backend.device()));
}

std::unique_ptr<Model> load_deepseek(const ModelConfig& config, const Weights& weights, const Backend& backend) {
  require_silu(config);
  require_latent_attention(config, backend);
  const JsonObject json(config.json, config.path);
  const SparseMlpOptions mixture = mixture_of(config);
  const LatentAttentionOptions latent = attention_of(config);
  const int64_t num_dense = int_or(json, "first_k_dense_replace", 0, kMaxWidth, 0);
  const int64_t every = int_or(json, "moe_layer_freq", 1, kMaxWidth, 1);
  const int64_t num_drafts = int_or(json, "num_nextn_predict_layers", 0, kMaxWidth, 0);
  const auto attention = [&](const Weights& layer, int64_t, int64_t cache_layer) {
    LatentAttentionOptions options = latent;
    options.layer = cache_layer;
    return std::make_unique<LatentAttention>(config, layer, options);
  };
  const auto feed_forward = [&](const Weights& layer, int64_t index) -> std::unique_ptr<Sublayer> {
    if (index >= num_dense && index % every == 0) return std::make_unique<SparseMlp>(config, layer, "mlp", mixture);
    return std::make_unique<Mlp>(
        layer, config.rms_norm_eps,
        MlpOptions{.hidden_size = config.hidden_size, .intermediate_size = config.intermediate_size});
  };
  return load_decoder(config, weights,
                      {.attention = attention,
                       .feed_forward = feed_forward,
                       .kv = {.num_kv_heads = 1, .head_dim = latent.cached_dim(), .values_in_keys = true},
                       .rotated_dim = latent.qk_rope_head_dim,
                       .ignorable = [=, layers = config.num_hidden_layers](std::string_view name) {
                         return num_drafts > 0 && is_draft_layer(name, layers);
                       }});
}

}  // namespace

extern const ModelArch k_deepseek;
const ModelArch k_deepseek{.architectures = kArchitectures, .load = load_deepseek};

}  // namespace octet
