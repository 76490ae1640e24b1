// The Llama family: pre-norm decoders with rotary, grouped-query attention and a gated MLP. Touvron et al. 2023
// (Llama), Jiang et al. 2023 (Mistral: sliding window), Qwen2 (biases on q, k, v), Qwen3 (norms of q and k heads); as
// in Hugging Face's modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3.
#include <array>
#include <optional>
#include <string>

#include "octet/base/error.h"
#include "octet/layers/attention.h"
#include "octet/layers/embedding.h"
#include "octet/layers/linear.h"
#include "octet/layers/lm_head.h"
#include "octet/layers/norm.h"
#include "octet/layers/rope.h"
#include "octet/models/model.h"

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

LinearRequest gate_up_request(const ModelConfig& config, const WeightSource& source, bool bias) {
  if (config.intermediate_size % source.world_size != 0) {
    fail(ErrorCode::kUnsupported, "{}: intermediate_size {} cannot be split over {} ranks", config.path,
         config.intermediate_size, source.world_size);
  }
  const int64_t local = config.intermediate_size / source.world_size;
  LinearPart gate{.name = "gate_proj", .n = config.intermediate_size, .first_n = source.rank * local, .local_n = local};
  LinearPart up = gate;
  up.name = "up_proj";
  return LinearRequest{.parts = {gate, up}, .k = config.hidden_size, .shard = Shard::kColumn, .bias = bias};
}

// [hidden_size, k], split along k.
LinearRequest row_request(const std::string& name, int64_t hidden_size, int64_t k, bool bias) {
  const LinearPart part{.name = name, .n = hidden_size, .local_n = hidden_size};
  return LinearRequest{.parts = {part}, .k = k, .shard = Shard::kRow, .bias = bias};
}

struct Layer {
  Layer(const ModelConfig& config, const Variant& variant, const HeadShard& heads, const Weights& w, int64_t index,
        int64_t cache_layer)
      : input_layernorm(w / "input_layernorm", config.hidden_size, config.rms_norm_eps),
        qkv_proj(w / "self_attn", qkv_request(config, heads, variant.qkv_bias)),
        attention(w / "self_attn", AttentionOptions{.heads = heads,
                                                    .layer = cache_layer,
                                                    .sliding_window = window_of(config, index),
                                                    .rms_norm_eps = config.rms_norm_eps,
                                                    .head_norm = variant.head_norm}),
        o_proj(w / "self_attn",
               row_request("o_proj", config.hidden_size, config.num_attention_heads * config.head_dim, variant.o_bias)),
        post_attention_layernorm(w / "post_attention_layernorm", config.hidden_size, config.rms_norm_eps),
        gate_up_proj(w / "mlp", gate_up_request(config, w.source(), variant.mlp_bias)),
        down_proj(w / "mlp", row_request("down_proj", config.hidden_size, config.intermediate_size, variant.mlp_bias)) {
  }

  RmsNorm input_layernorm;
  ColumnLinear qkv_proj;
  Attention attention;
  RowLinear o_proj;
  RmsNorm post_attention_layernorm;
  GatedLinear gate_up_proj;
  RowLinear down_proj;
};

class LlamaModel final : public Model {
 public:
  LlamaModel(const ModelConfig& config, const Weights& weights)
      : config_(config),
        stage_(weights.source().layers, config),
        heads_(head_shard(config, weights.source().rank, weights.source().world_size)),
        rotary_(config, weights) {
    if (stage_.first())
      embed_tokens_.emplace(weights / "model" / "embed_tokens", config.vocab_size, config.hidden_size);
    if (stage_.last()) {
      norm_.emplace(weights / "model" / "norm", config.hidden_size, config.rms_norm_eps);
      lm_head_.emplace(weights, config.vocab_size, config.hidden_size, embed_tokens_ ? &*embed_tokens_ : nullptr,
                       config.tie_word_embeddings ? "model.embed_tokens" : "");
    }
    const Variant variant = variant_of(config);
    layers_.reserve(static_cast<size_t>(stage_.end - stage_.begin));
    for (int64_t i = stage_.begin; i < stage_.end; ++i) {
      layers_.emplace_back(config, variant, heads_, weights / "model" / "layers" / i, i, i - stage_.begin);
    }
  }

  Tensor forward(Step& step) const override;
  Tensor logits(Step& step, ConstTensor hidden_rows) const override { return lm_head_.value()(step, hidden_rows); }
  int64_t activation_bytes(int64_t num_tokens, int64_t num_logit_rows) const override;
  int64_t vocab_size() const override { return config_.vocab_size; }
  std::vector<LinearRow> linears() const override;

  KvCacheLayout kv_layout() const override {
    KvCacheLayout layout{.num_layers = stage_.end - stage_.begin,
                         .num_kv_heads = heads_.num_kv_heads,
                         .head_dim = heads_.head_dim,
                         .first_kv_head = heads_.first_kv_head};
    for (int64_t i = stage_.begin; i < stage_.end; ++i) layout.sliding_windows.push_back(window_of(config_, i));
    return layout;
  }

 private:
  void observe_residual(const Step& step, int64_t layer, ConstTensor residual) const;

  const ModelConfig config_;
  const Stage stage_;
  HeadShard heads_;
  std::optional<Embedding> embed_tokens_;  // of the first stage
  RotaryEmbedding rotary_;
  std::vector<Layer> layers_;
  std::optional<RmsNorm> norm_;  // of the last stage
  std::optional<LmHead> lm_head_;
};

// The residual as it stands before layer `layer`: the embedding, or the output of the layer before.
void LlamaModel::observe_residual(const Step& step, int64_t layer, ConstTensor residual) const {
  if (!step.observe) return;
  step.observe(layer == 0 ? std::string("embed_tokens") : fmt::format("layers.{}.output", layer - 1), residual);
}

Tensor LlamaModel::forward(Step& step) const {
  const Tensor residual = embed_tokens_ ? (*embed_tokens_)(step) : step.residual;
  const RopeAngles angles = rotary_(step);
  Partial x = Partial::none(step, config_.hidden_size);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    {
      const Arena::Scope scope(step.arena);
      const Activation h = layer.input_layernorm(step, x, residual, layer.qkv_proj);
      observe_residual(step, stage_.begin + static_cast<int64_t>(i), residual);
      layer.o_proj(step, layer.attention(step, angles, layer.qkv_proj(step, h), layer.o_proj), x);
    }
    {
      const Arena::Scope scope(step.arena);
      const Activation h = layer.post_attention_layernorm(step, x, residual, layer.gate_up_proj);
      layer.down_proj(step, layer.gate_up_proj(step, h, layer.down_proj), x);
    }
  }
  if (!norm_) {  // only for what the norm adds to the residual
    const Arena::Scope scope(step.arena);
    layers_.back().post_attention_layernorm(step, x, residual);
    observe_residual(step, stage_.end, residual);
    return residual;
  }
  const Tensor h = (*norm_)(step, x, residual);
  observe_residual(step, stage_.end, residual);
  if (step.observe) step.observe("norm", h);
  return h;
}

int64_t LlamaModel::activation_bytes(int64_t num_tokens, int64_t num_logit_rows) const {
  const int64_t t = num_tokens;
  const int64_t stream = arena_bytes(t * config_.hidden_size);
  int64_t widest = 0;
  for (const Layer& layer : layers_) {
    const int64_t attention = layer.qkv_proj.input_bytes(t) + layer.qkv_proj.output_bytes(t) +
                              layer.attention.scratch_bytes(t) + layer.o_proj.input_bytes(t) +
                              layer.o_proj.scratch_bytes(t);
    const int64_t mlp = layer.gate_up_proj.input_bytes(t) + layer.gate_up_proj.scratch_bytes(t) +
                        layer.down_proj.input_bytes(t) + layer.down_proj.scratch_bytes(t);
    widest = std::max({widest, attention, mlp});
  }
  // Residual, partial sums and the final norm; angles; the rows that logits are wanted of, gathered by the caller;
  // logits.
  return 3 * stream + rotary_.output_bytes(t) + widest + arena_bytes(num_logit_rows * config_.hidden_size) +
         (lm_head_ ? lm_head_->scratch_bytes(num_logit_rows) : 0);
}

std::vector<Model::LinearRow> LlamaModel::linears() const {
  std::vector<LinearRow> rows;
  const auto add = [&rows](const Linear& linear) {
    rows.push_back(LinearRow{.module = linear.name(),
                             .weight = linear.weight_format(),
                             .activation = linear.activation_format(),
                             .n = linear.n(),
                             .k = linear.k()});
  };
  for (const Layer& layer : layers_) {
    add(layer.qkv_proj);
    add(layer.o_proj);
    add(layer.gate_up_proj);
    add(layer.down_proj);
  }
  if (lm_head_ && lm_head_->linear() != nullptr) add(*lm_head_->linear());
  return rows;
}

constexpr std::array<std::string_view, 4> kArchitectures = {"LlamaForCausalLM", "MistralForCausalLM",
                                                            "Qwen2ForCausalLM", "Qwen3ForCausalLM"};

std::unique_ptr<Model> load_llama(const ModelConfig& config, const Weights& weights, const Backend&) {
  if (config.hidden_act != "silu") {
    fail(ErrorCode::kUnsupported, "{}: hidden_act \"{}\" is not supported by {}, expected \"silu\"", config.path,
         config.hidden_act, config.architecture);
  }
  auto model = std::make_unique<LlamaModel>(config, weights);
  const Stage stage(weights.source().layers, config);
  check_all_consumed(weights.source(), [&](std::string_view name) {
    if (name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")) return true;
    if (!stage.may_have(name, "model.layers")) return true;
    return (!stage.first() && name == "model.embed_tokens.weight") ||
           (!stage.last() && (name == "model.norm.weight" || name == "lm_head.weight"));
  });
  return model;
}

}  // namespace

extern const ModelArch k_llama;
const ModelArch k_llama{.architectures = kArchitectures, .load = load_llama};

}  // namespace octet
