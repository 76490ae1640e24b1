#include "octet/layers/sparse_mlp.h"

#include "octet/base/error.h"

namespace octet {
namespace {

// A small linear that every rank has, and that stays as it is.
LinearRequest gate_request(const std::string& name, int64_t n, int64_t k) {
  return {.parts = {LinearPart{.name = name, .n = n, .local_n = n}}, .k = k, .keep_plain = true};
}

// What routing cannot do, before any tensor is looked at.
void check_options(const ModelConfig& config, const SparseMlpOptions& options) {
  const int64_t experts = options.experts.num_experts, k = options.experts_per_token;
  const ExpertRouting& routing = options.routing;
  if (k > experts) {
    fail(ErrorCode::kModel, "{}: {} = {}: a token cannot have more experts than the {} of {}", config.path,
         options.slots_key, k, experts, options.experts.count_key);
  }
  if (experts % routing.num_groups != 0) {
    fail(ErrorCode::kModel, "{}: n_group = {}: the {} experts do not divide into groups", config.path,
         routing.num_groups, experts);
  }
  if (routing.num_chosen_groups > routing.num_groups || k > experts / routing.num_groups * routing.num_chosen_groups) {
    fail(ErrorCode::kModel, "{}: topk_group = {} of n_group = {} groups have fewer than the {} experts of a token",
         config.path, routing.num_chosen_groups, routing.num_groups, k);
  }
}

const SparseMlpOptions& checked(const ModelConfig& config, const SparseMlpOptions& options) {
  check_options(config, options);
  return options;
}

}  // namespace

Router::Router(const Weights& weights, const SparseMlpOptions& options)
    : gate_(weights, gate_request("gate", options.experts.num_experts, options.experts.hidden_size)),
      routing_(options.routing),
      num_slots_(options.experts_per_token) {
  if (options.has_correction) {
    correction_ =
        (weights / "gate").parameter("e_score_correction_bias", Shape{options.experts.num_experts}, DType::kF32);
  }
}

Router::Routing Router::operator()(Step& step, ConstTensor x, int64_t first_expert, int64_t num_experts) const {
  const int64_t t = x.dim(0);
  const auto integers = [&](Shape shape) { return step.arena.make(DType::kI32, shape); };
  const Tensor ids = integers(Shape{t, num_slots_});
  const Tensor weights = step.arena.make(DType::kF32, Shape{t, num_slots_});
  const ExpertPlan plan{integers(Shape{num_experts + 1}), integers(Shape{t * num_slots_}),
                        integers(Shape{t, num_slots_})};
  const Arena::Scope scope(step.arena);
  const Tensor logits = step.arena.make(DType::kF32, Shape{t, gate_.n()});
  gate_.multiply_into(step, gate_.input_of(step, x), logits);
  step.backend(RouteExpertsOp{.expert_ids = ids,
                              .weights = weights,
                              .plan = plan,
                              .x = logits,
                              .correction = correction_,
                              .routing = routing_,
                              .first_expert = first_expert});
  return {.weights = weights, .plan = plan};
}

int64_t Router::scratch_bytes(int64_t t) const {
  return 4 * arena_bytes(t * num_slots_) + arena_bytes(gate_.n() + 1) + arena_bytes(t * gate_.n()) +
         gate_.input_bytes(t);
}

SparseMlp::SparseMlp(const ModelConfig& config, const Weights& weights, std::string_view name,
                     const SparseMlpOptions& options)
    : Sublayer(RmsNorm(weights / "post_attention_layernorm", config.hidden_size, config.rms_norm_eps)),
      hidden_size_(config.hidden_size),
      num_slots_(options.experts_per_token),
      experts_(weights / name / "experts", checked(config, options).experts),
      router_(weights / name, options) {
  if (options.shared_intermediate_size == 0) return;
  shared_.emplace(weights / name / options.shared_name,
                  MlpOptions{.hidden_size = config.hidden_size, .intermediate_size = options.shared_intermediate_size});
  if (!options.shared_gate_name.empty())
    shared_gate_.emplace(weights / name, gate_request(options.shared_gate_name, 1, config.hidden_size));
}

ConstTensor SparseMlp::shared_gate(Step& step, ConstTensor x) const {
  if (!shared_gate_) return {};
  const Tensor logits = step.arena.make(DType::kF32, Shape{x.dim(0), 1});
  const Arena::Scope scope(step.arena);
  shared_gate_->multiply_into(step, shared_gate_->input_of(step, x), logits);
  return logits;
}

Tensor SparseMlp::routed(Step& step, ConstTensor x, const ConstExpertPlan& plan) const {
  if (!step.observe_input || step.observed_experts == ObservedExperts::kRouted) return experts_(step, x, plan);
  experts_.observe_all(step, x);
  Step unobserved = step;
  unobserved.observe_input = nullptr;
  return experts_(unobserved, x, plan);
}

void SparseMlp::operator()(Step& step, const RopeAngles&, Tensor residual, Partial& x) const {
  const Arena::Scope scope(step.arena);
  const Tensor h = norm()(step, x, residual);
  const Router::Routing routing = router_(step, h, experts_.first_expert(), experts_.num_experts());
  CombineExpertsOp combine{.out = {},
                           .y = {},
                           .weights = routing.weights,
                           .rows = routing.plan.rows,
                           .shared = {},
                           .shared_gate = shared_gate(step, h)};
  if (shared_) {
    Partial shared = Partial::none(step, hidden_size_);
    const Arena::Scope inner(step.arena);
    (*shared_)(step, shared_->input().input_of(step, h), shared);
    combine.shared = shared.share();
  }
  combine.y = routed(step, h, routing.plan);
  combine.out = x.fill();
  step.backend(combine);
}

int64_t SparseMlp::scratch_bytes(int64_t t) const {
  int64_t shared = 0;
  if (shared_) {
    shared = Partial::num_bytes(t, hidden_size_) + arena_bytes(t) + arena_bytes(t * hidden_size_) +
             shared_->input().input_bytes(t) + shared_->scratch_bytes(t);
  }
  return arena_bytes(t * hidden_size_) + router_.scratch_bytes(t) + shared + experts_.scratch_bytes(t, num_slots_);
}

void SparseMlp::describe(std::vector<LinearRow>& rows) const {
  router_.describe(rows);
  experts_.describe(rows);
  if (shared_) shared_->describe(rows);
  if (shared_gate_) rows.push_back(shared_gate_->row());
}

}  // namespace octet
