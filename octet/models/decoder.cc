#include "octet/models/decoder.h"

#include <algorithm>
#include <optional>
#include <string>

#include "octet/base/error.h"
#include "octet/layers/embedding.h"
#include "octet/layers/lm_head.h"

namespace octet {
namespace {

// The config that rotary embedding sees.
ModelConfig rotated(ModelConfig config, const DecoderFamily& family) {
  config.head_dim = family.rotated_dim.value_or(config.head_dim);
  return config;
}

struct Layer {
  std::unique_ptr<Sublayer> attention, feed_forward;
};

class Decoder final : public Model {
 public:
  Decoder(const ModelConfig& config, const Weights& weights, const DecoderFamily& family)
      : config_(config),
        stage_(weights.source().layers, config),
        kv_(family.kv),
        rotary_(rotated(config, family), weights) {
    if (stage_.first())
      embed_tokens_.emplace(weights / "model" / "embed_tokens", config.vocab_size, config.hidden_size);
    if (stage_.last()) {
      norm_.emplace(weights / "model" / "norm", config.hidden_size, config.rms_norm_eps);
      lm_head_.emplace(weights, config.vocab_size, config.hidden_size, embed_tokens_ ? &*embed_tokens_ : nullptr,
                       config.tie_word_embeddings ? "model.embed_tokens" : "");
    }
    kv_.num_layers = stage_.end - stage_.begin;
    for (int64_t i = stage_.begin; i < stage_.end; ++i) {
      const Weights layer = weights / "model" / "layers" / i;
      std::unique_ptr<Sublayer> attention = family.attention(layer, i, i - stage_.begin);
      layers_.push_back({.attention = std::move(attention), .feed_forward = family.feed_forward(layer, i)});
      kv_.sliding_windows.push_back(family.window(i));
    }
  }

  Tensor forward(Step& step) const override;
  Tensor logits(Step& step, ConstTensor hidden_rows) const override { return lm_head_.value()(step, hidden_rows); }
  int64_t activation_bytes(int64_t num_tokens, int64_t num_logit_rows) const override;
  int64_t vocab_size() const override { return config_.vocab_size; }
  std::vector<LinearRow> linears() const override;
  KvCacheLayout kv_layout() const override { return kv_; }

 private:
  void observe_residual(const Step& step, int64_t layer, ConstTensor residual) const;

  const ModelConfig config_;
  const Stage stage_;
  KvCacheLayout kv_;
  std::optional<Embedding> embed_tokens_;  // of the first stage
  RotaryEmbedding rotary_;
  std::vector<Layer> layers_;
  std::optional<RmsNorm> norm_;  // of the last stage
  std::optional<LmHead> lm_head_;
};

// The residual as it stands before layer `layer`: the embedding, or the output of the layer before.
void Decoder::observe_residual(const Step& step, int64_t layer, ConstTensor residual) const {
  if (!step.observe) return;
  step.observe(layer == 0 ? std::string("embed_tokens") : fmt::format("layers.{}.output", layer - 1), residual);
}

Tensor Decoder::forward(Step& step) const {
  const Tensor residual = embed_tokens_ ? (*embed_tokens_)(step) : step.residual;
  const RopeAngles angles = rotary_(step);
  Partial x = Partial::none(step, config_.hidden_size);
  for (size_t i = 0; i < layers_.size(); ++i) {
    (*layers_[i].attention)(step, angles, residual, x);
    observe_residual(step, stage_.begin + static_cast<int64_t>(i), residual);
    (*layers_[i].feed_forward)(step, angles, residual, x);
  }
  if (!norm_) {  // only for what the norm adds to the residual
    const Arena::Scope scope(step.arena);
    layers_.back().feed_forward->norm()(step, x, residual);
    observe_residual(step, stage_.end, residual);
    return residual;
  }
  const Tensor h = (*norm_)(step, x, residual);
  observe_residual(step, stage_.end, residual);
  if (step.observe) step.observe("norm", h);
  return h;
}

int64_t Decoder::activation_bytes(int64_t num_tokens, int64_t num_logit_rows) const {
  int64_t widest = 0;
  for (const Layer& layer : layers_) {
    widest =
        std::max({widest, layer.attention->scratch_bytes(num_tokens), layer.feed_forward->scratch_bytes(num_tokens)});
  }
  // Residual, partial sums and the final norm; angles; the rows that logits are wanted of, gathered by the caller;
  // logits.
  return 3 * arena_bytes(num_tokens * config_.hidden_size) + rotary_.output_bytes(num_tokens) + widest +
         arena_bytes(num_logit_rows * config_.hidden_size) + (lm_head_ ? lm_head_->scratch_bytes(num_logit_rows) : 0);
}

std::vector<LinearRow> Decoder::linears() const {
  std::vector<LinearRow> rows;
  for (const Layer& layer : layers_) {
    layer.attention->describe(rows);
    layer.feed_forward->describe(rows);
  }
  if (lm_head_ && lm_head_->linear() != nullptr) rows.push_back(lm_head_->linear()->row());
  return rows;
}

}  // namespace

std::unique_ptr<Model> load_decoder(const ModelConfig& config, const Weights& weights, const DecoderFamily& family) {
  auto model = std::make_unique<Decoder>(config, weights, family);
  const Stage stage(weights.source().layers, config);
  check_all_consumed(weights.source(), [&](std::string_view name) {
    if (name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")) return true;
    if (!stage.may_have(name, "model.layers") || family.ignorable(name)) return true;
    return (!stage.first() && name == "model.embed_tokens.weight") ||
           (!stage.last() && (name == "model.norm.weight" || name == "lm_head.weight"));
  });
  return model;
}

void require_silu(const ModelConfig& config) {
  if (config.hidden_act == "silu") return;
  fail(ErrorCode::kUnsupported, "{}: hidden_act \"{}\" is not supported by {}, expected \"silu\"", config.path,
       config.hidden_act, config.architecture);
}

}  // namespace octet
