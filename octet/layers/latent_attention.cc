#include "octet/layers/latent_attention.h"

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr double kLatentNormEpsilon = 1e-6;  // whatever the model's own is

int64_t local_heads(const ModelConfig& config, const WeightSource& source, int64_t num_heads) {
  if (num_heads % source.world_size != 0) {
    fail(ErrorCode::kUnsupported, "{}: {} heads cannot be split over {} ranks", config.path, num_heads,
         source.world_size);
  }
  return num_heads / source.world_size;
}

// Rows of this rank's heads, `dim` each.
LinearPart heads_part(const std::string& name, const LatentAttentionOptions& options, const WeightSource& source,
                      int64_t dim) {
  const int64_t local = options.num_heads / source.world_size * dim;
  return {.name = name, .n = options.num_heads * dim, .first_n = source.rank * local, .local_n = local};
}

LinearRequest down_request(const ModelConfig& config, const LatentAttentionOptions& options,
                           const WeightSource& source) {
  const int64_t kv = options.cached_dim();
  const LinearPart kv_a{.name = "kv_a_proj_with_mqa", .n = kv, .local_n = kv};
  if (options.q_lora_rank == 0) {
    return {.parts = {heads_part("q_proj", options, source, options.query_dim()), kv_a},
            .k = config.hidden_size,
            .shard = Shard::kColumn};
  }
  const LinearPart q_a{.name = "q_a_proj", .n = options.q_lora_rank, .local_n = options.q_lora_rank};
  return {.parts = {q_a, kv_a}, .k = config.hidden_size, .bias = options.bias};
}

HeadProjectionsRequest up_request(const LatentAttentionOptions& options, const WeightSource& source) {
  const int64_t dim = options.qk_nope_head_dim + options.v_head_dim;
  return {.linear = {.parts = {heads_part("kv_b_proj", options, source, dim)},
                     .k = options.kv_lora_rank,
                     .shard = Shard::kColumn},
          .num_heads = options.num_heads / source.world_size,
          .key_dim = options.qk_nope_head_dim};
}

}  // namespace

LatentAttention::LatentAttention(const ModelConfig& config, const Weights& weights,
                                 const LatentAttentionOptions& options)
    : Sublayer(RmsNorm(weights / "input_layernorm", config.hidden_size, config.rms_norm_eps)),
      options_(options),
      num_heads_(local_heads(config, weights.source(), options.num_heads)),
      down_(weights / "self_attn", down_request(config, options, weights.source())),
      kv_norm_(
          (weights / "self_attn" / "kv_a_layernorm").parameter("weight", Shape{options.kv_lora_rank}, DType::kF32)),
      up_((weights / "self_attn").head_projections(up_request(options, weights.source()))),
      o_proj_(weights / "self_attn",
              row_request("o_proj", config.hidden_size, options.num_heads * options.v_head_dim, options.bias)) {
  if (options.q_lora_rank == 0) return;
  const Weights attention = weights / "self_attn";
  q_norm_.emplace(attention / "q_a_layernorm", options.q_lora_rank, kLatentNormEpsilon);
  q_up_.emplace(attention,
                LinearRequest{.parts = {heads_part("q_b_proj", options, weights.source(), options.query_dim())},
                              .k = options.q_lora_rank,
                              .shard = Shard::kColumn});
}

Tensor LatentAttention::queries(Step& step, Tensor down) const {
  const int64_t width = down.dim(1) - options_.cached_dim();
  if (!q_up_) return down.columns(0, width);
  return (*q_up_)(step, q_norm_->of(step, down.columns(0, width), *q_up_));
}

// [T, H * v_head_dim] of queries in the latent's space.
Tensor LatentAttention::attend(Step& step, Tensor q) const {
  const KvCache& kv = step.kv;
  const int64_t t = q.dim(0), latent = options_.kv_lora_rank, v = options_.v_head_dim;
  const Tensor out = step.make(Shape{t, num_heads_ * v});
  const Arena::Scope scope(step.arena);
  const Tensor latents = step.make(Shape{t, num_heads_ * latent});
  step.backend(PagedAttentionOp{.out = latents,
                                .quantized = {},
                                .q = q,
                                .k_cache = kv.k(options_.layer),
                                .v_cache = kv.v(options_.layer),
                                .query_start = step.batch.query_start,
                                .seq_lens = step.batch.seq_lens,
                                .block_table = step.batch.block_table,
                                .softmax_scale = options_.softmax_scale,
                                .k_scale = kv.k_scale(options_.layer),
                                .v_scale = kv.k_scale(options_.layer)});
  step.backend(HeadMatmulOp{.out = out, .out_step = v, .x = latents, .x_step = latent, .weight = up_.value});
  return out;
}

void LatentAttention::observe_latents(Step& step, Tensor latents) const {
  const Arena::Scope scope(step.arena);
  const Tensor normalised = step.make(latents.shape);
  step.backend(RmsNormOp{.out = QuantTensor(normalised),
                         .x = {},
                         .residual = latents,
                         .weight = kv_norm_,
                         .epsilon = static_cast<float>(kLatentNormEpsilon)});
  step.observe_input(up_.name, normalised);
}

void LatentAttention::operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const {
  const Arena::Scope scope(step.arena);
  const Activation h = norm()(step, x, residual, down_);
  const Tensor down = down_(step, h);
  const Tensor q = queries(step, down);
  const int64_t t = q.dim(0), cached = options_.cached_dim();
  if (step.observe_input) observe_latents(step, down.columns(down.dim(1) - cached, options_.kv_lora_rank));
  const Tensor absorbed = step.make(Shape{t, num_heads_ * cached});
  step.backend(
      HeadMatmulOp{.out = absorbed, .out_step = cached, .x = q, .x_step = options_.query_dim(), .weight = up_.key});
  step.backend(LatentKvOp{.q_out = absorbed,
                          .cache = step.kv.k(options_.layer),
                          .q = q,
                          .kv = down.columns(down.dim(1) - cached, cached),
                          .norm = kv_norm_,
                          .cos = angles.cos,
                          .sin = angles.sin,
                          .slot_mapping = step.batch.slot_mapping,
                          .pairs = options_.pairs,
                          .norm_epsilon = static_cast<float>(kLatentNormEpsilon),
                          .scale = step.kv.k_scale(options_.layer)});
  o_proj_(step, o_proj_.input_of(step, attend(step, absorbed)), x);
}

int64_t LatentAttention::scratch_bytes(int64_t t) const {
  const int64_t q_up = q_up_ ? q_up_->input_bytes(t) + q_up_->output_bytes(t) : 0;
  return down_.input_bytes(t) + down_.output_bytes(t) + q_up + arena_bytes(t * num_heads_ * options_.cached_dim()) +
         arena_bytes(t * num_heads_ * options_.kv_lora_rank) + arena_bytes(t * num_heads_ * options_.v_head_dim) +
         o_proj_.input_bytes(t) + o_proj_.scratch_bytes(t);
}

void LatentAttention::describe(std::vector<LinearRow>& rows) const {
  rows.push_back(down_.row());
  if (q_up_) rows.push_back(q_up_->row());
  rows.push_back({.module = up_.name,
                  .weight = plain_format(up_.key.dtype),
                  .activation = {},
                  .n = num_heads_ * (options_.qk_nope_head_dim + options_.v_head_dim),
                  .k = options_.kv_lora_rank});
  rows.push_back(o_proj_.row());
}

}  // namespace octet
