#include "octet/layers/experts.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "octet/base/error.h"

namespace octet {
namespace {

// The expert that a tensor's name below "experts" begins with.
std::optional<int64_t> expert_of(std::string_view name) {
  int64_t number = 0;
  const auto [after, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || after == name.data() + name.size() || *after != '.') return std::nullopt;
  return number;
}

// A stack on a rank without experts: nothing is read, no row comes.
LoadedLinear empty_stack(const WeightSource& source, int64_t n, int64_t k) {
  return {.weight = QuantTensor(Tensor(nullptr, source.plain_dtype, Shape{0, n, k})),
          .bias = {},
          .activation = plain_format(DType::kF32),
          .input_scale = {},
          .input_zero_point = {}};
}

}  // namespace

struct Experts::Names {
  std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
  bool stacked = false;

  LinearPart part(const Weights& weights, const ExpertsOptions& options, int64_t expert, std::string_view leaf) const {
    const bool is_down = leaf == down;
    const int64_t rows = is_down ? options.hidden_size : options.intermediate_size;
    LinearPart part{.name = fmt::format("{}.{}", expert, leaf), .n = rows, .local_n = rows};
    if (!stacked) return part;
    const int64_t inputs = is_down ? options.intermediate_size : options.hidden_size;
    const int64_t all = is_down ? rows : 2 * rows;  // gate, then up
    part.stack = LinearPart::Stack{.tensor = weights.full_name(is_down ? "down_proj" : "gate_up_proj"),
                                   .shape = Shape{options.num_experts, all, inputs},
                                   .first_row = expert * all + (leaf == up ? rows : 0)};
    return part;
  }
};

Experts::Names Experts::names_of(const Weights& weights, const ExpertsOptions& options) {
  int64_t found = 0;
  bool numbered = false, projections = false, stacked = false;
  for (const std::string_view name : weights.names()) {
    const std::optional<int64_t> expert = expert_of(name);
    stacked = stacked || !expert;
    if (!expert) continue;
    found = std::max(found, *expert + 1);
    numbered = numbered || name.find(".w1.") != std::string_view::npos;
    projections = projections || name.find(".gate_proj.") != std::string_view::npos;
  }
  if (numbered + projections + stacked > 1) {
    fail(ErrorCode::kModel, "{}: its experts are there twice: under {}{}{} expected one of them", weights.prefix(),
         stacked ? "gate_up_proj, " : "", numbered ? "<expert>.w1, " : "", projections ? "<expert>.gate_proj;" : "");
  }
  if (found > 0 && found != options.num_experts) {
    fail(ErrorCode::kModel, "{}: the checkpoint has experts 0 to {}, config.json says {} = {}", weights.prefix(),
         found - 1, options.count_key, options.num_experts);
  }
  Names names{.stacked = stacked};
  if (numbered) names = {.gate = "w1", .up = "w3", .down = "w2"};
  return names;
}

Experts::Share Experts::share_of(const WeightSource& source, const ExpertsOptions& options) {
  const bool divides = options.intermediate_size % source.world_size == 0;
  if (source.expert_split == WeightSource::ExpertSplit::kChannels && divides)
    return {.first = 0, .count = options.num_experts, .whole = source.world_size == 1};
  const int64_t first = options.num_experts * source.rank / source.world_size;
  return {.first = first, .count = options.num_experts * (source.rank + 1) / source.world_size - first};
}

ExpertLinear Experts::load(const Weights& weights, const ExpertsOptions& options, const Share& share, Stack stack) {
  const bool down = stack == Stack::kDown;
  const Names names = names_of(weights, options);
  const WeightSource& source = weights.source();
  const int64_t ranks = share.whole ? 1 : source.world_size;
  const int64_t local = options.intermediate_size / ranks;
  std::vector<LinearRequest> requests;
  for (int64_t e = share.first; e < share.first + share.count; ++e) {
    if (down) {
      requests.push_back({.parts = {names.part(weights, options, e, names.down)},
                          .k = options.intermediate_size,
                          .shard = share.whole ? Shard::kReplicated : Shard::kRow});
      continue;
    }
    LinearRequest request{
        .parts = {names.part(weights, options, e, names.gate), names.part(weights, options, e, names.up)},
        .k = options.hidden_size,
        .shard = share.whole ? Shard::kReplicated : Shard::kColumn};
    for (LinearPart& part : request.parts) {
      part.first_n = share.whole ? 0 : source.rank * local;
      part.local_n = local;
    }
    requests.push_back(std::move(request));
  }
  const std::string name = down ? names.down : fmt::format("{{{},{}}}", names.gate, names.up);
  return down ? ExpertLinear(weights, requests, name, options.hidden_size, local)
              : ExpertLinear(weights, requests, name, 2 * local, options.hidden_size);
}

Experts::Experts(const Weights& weights, const ExpertsOptions& options)
    : hidden_size_(options.hidden_size),
      share_(share_of(weights.source(), options)),
      gate_up_(load(weights, options, share_, Stack::kGateUp)),
      down_(load(weights, options, share_, Stack::kDown)) {
  for (int64_t e = 0; e < options.num_experts; ++e) {
    if (e < share_.first || e >= share_.first + share_.count) (weights / e).leave_to_other_ranks();
  }
  if (share_.count > 0) return;
  for (const std::string_view name : {"gate_up_proj", "down_proj"}) {
    if (weights.has(name)) weights.source().consumed.insert(weights.full_name(name));
  }
}

ConstQuantTensor Experts::activate(Step& step, ConstTensor gate_up, const ConstExpertPlan& plan) const {
  const QuantTensor out = down_.make_input(step, gate_up.dim(0));
  if (!down_.shares_token_scale()) {
    step.backend(ExpertSiluAndMulOp{.out = out, .x = gate_up, .plan = plan});
    return out;
  }
  const Arena::Scope scope(step.arena);
  const Tensor activated = step.make(Shape{gate_up.dim(0), down_.k()});
  step.backend(ExpertSiluAndMulOp{.out = QuantTensor(activated), .x = gate_up, .plan = plan});
  quantize_with_shared_scales(step, activated, out);
  return out;
}

ConstQuantTensor Experts::down_input(Step& step, ConstTensor x, const ConstExpertPlan& plan) const {
  const int64_t num_rows = plan.order.dim(0);
  const Tensor gate_up = step.make(Shape{num_rows, gate_up_.n()});
  const QuantTensor rows = gate_up_.make_input(step, num_rows);
  step.backend(ExpertPermuteOp{.out = rows, .x = x, .plan = plan});
  gate_up_.multiply(step, rows, plan, gate_up);
  return activate(step, gate_up, plan);
}

Tensor Experts::operator()(Step& step, ConstTensor x, const ConstExpertPlan& plan) const {
  const Tensor y = step.make(Shape{plan.order.dim(0), hidden_size_});
  const Arena::Scope scope(step.arena);
  down_.multiply(step, down_input(step, x, plan), plan, y);
  return y;
}

void Experts::observe_all(Step& step, ConstTensor x) const {
  const int64_t t = x.dim(0);
  std::vector<int32_t> tokens(static_cast<size_t>(t));
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto integers = [](std::vector<int32_t>& values, Shape shape) {
    return Tensor(std::as_writable_bytes(std::span(values)).data(), DType::kI32, shape);
  };
  for (int64_t e = 0; e < share_.count; ++e) {
    // All rows are expert e's, and every token has one slot.
    std::vector<int32_t> offsets(static_cast<size_t>(share_.count + 1), 0);
    std::fill(offsets.begin() + e + 1, offsets.end(), static_cast<int32_t>(t));
    const ExpertPlan plan(integers(offsets, Shape{share_.count + 1}), integers(tokens, Shape{t}),
                          integers(tokens, Shape{t, 1}));
    const Arena::Scope scope(step.arena);
    down_.observe(step, down_input(step, x, plan), plan);
  }
}

int64_t Experts::scratch_bytes(int64_t num_tokens, int64_t num_slots) const {
  const int64_t rows = num_tokens * num_slots;
  return arena_bytes(rows * hidden_size_) + arena_bytes(rows * gate_up_.n()) + gate_up_.input_bytes(rows) +
         down_.input_bytes(rows) + (down_.shares_token_scale() ? arena_bytes(rows * down_.k()) : 0);
}

void Experts::describe(std::vector<LinearRow>& rows) const {
  rows.push_back(gate_up_.row());
  rows.push_back(down_.row());
}

ExpertLinear::ExpertLinear(const Weights& weights, const std::vector<LinearRequest>& requests, const std::string& name,
                           int64_t n, int64_t k)
    : name_(weights.full_name("*." + name)),
      loaded_(requests.empty() ? empty_stack(weights.source(), n, k) : weights.stack(requests, name)) {
  for (const LinearRequest& request : requests) names_.push_back(linear_name(weights, request.parts));
  const bool sharded = !requests.empty() && requests[0].shard == Shard::kRow && weights.source().world_size > 1;
  shares_token_scale_ = sharded && weights.source().shares_token_scales && has_shareable_scale(loaded_.activation);
}

QuantTensor ExpertLinear::make_input(Step& step, int64_t num_rows) const {
  const QuantFormat& format = loaded_.activation;
  if (!format.quantized()) return QuantTensor(step.make(Shape{num_rows, k()}));
  if (format.dynamic) return make_dynamic(step, format, num_rows, k());
  QuantTensor x(step.arena.make(format.dtype, Shape{num_rows, k()}), loaded_.input_scale, format);
  x.zero_point = loaded_.input_zero_point;
  return x;
}

int64_t ExpertLinear::input_bytes(int64_t num_rows) const {
  if (!loaded_.activation.quantized()) return arena_bytes(num_rows * k());
  return dynamic_bytes(loaded_.activation, num_rows, k());
}

void ExpertLinear::multiply(Step& step, const ConstQuantTensor& x, const ConstExpertPlan& plan, Tensor out) const {
  observe(step, x, plan);
  step.backend(ExpertMatmulOp{.out = out, .x = x, .weight = loaded_.weight, .plan = plan, .follows_plan = true});
}

// Calibration runs on the CPU, whose routing the host sees.
void ExpertLinear::observe(Step& step, const ConstQuantTensor& x, const ConstExpertPlan& plan) const {
  if (!step.observe_input || x.format.quantized()) return;
  const auto* offsets = plan.offsets.data<int32_t>();
  for (size_t e = 0; e < names_.size(); ++e) {
    const int64_t begin = offsets[e], count = offsets[e + 1] - begin;
    if (count > 0) step.observe_input(names_[e], x.data.rows(begin, count));
  }
}

LinearRow ExpertLinear::row() const {
  return {.module = name_,
          .weight = loaded_.weight.format,
          .activation = loaded_.activation,
          .n = n(),
          .k = k(),
          .count = loaded_.weight.data.dim(0)};
}

}  // namespace octet
