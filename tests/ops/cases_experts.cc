// Cases of the ops of mixtures of experts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

// How a case's tokens are spread over experts.
struct Spread {
  int64_t tokens, slots, experts;
  int64_t first = 0, here = 0;  // the rank's experts
};

Spread draw_spread(Random& random) {
  Spread spread{.tokens = random.pick<int64_t>({1, 1, 2, 3, 5, 9, 24}),
                .slots = random.pick<int64_t>({1, 2, 4, 6}),
                .experts = random.pick<int64_t>({6, 8, 15, 32})};
  spread.here = spread.experts;
  return spread;
}

// Some of the experts, perhaps none of those that any token has.
Spread draw_share(Random& random) {
  Spread spread = draw_spread(random);
  spread.first = random.between(0, spread.experts - 1);
  spread.here = random.between(1, spread.experts - spread.first);
  return spread;
}

// Every token's experts, drawn without putting back; some experts are likelier.
std::vector<int32_t> draw_experts(Random& random, const Spread& spread) {
  std::vector<int32_t> ids;
  std::vector<int32_t> all(static_cast<size_t>(spread.experts));
  for (int64_t t = 0; t < spread.tokens; ++t) {
    std::iota(all.begin(), all.end(), 0);
    for (int64_t s = 0; s < spread.slots; ++s) {
      const int64_t last = static_cast<int64_t>(all.size()) - 1;
      const int64_t other = random.between(s, random.coin() ? last : std::min(last, s + 2));
      std::swap(all[static_cast<size_t>(s)], all[static_cast<size_t>(other)]);
    }
    ids.insert(ids.end(), all.begin(), all.begin() + spread.slots);
  }
  return ids;
}

struct Plan {
  std::vector<int32_t> offsets = {0}, order, rows;
};

Plan plan_of(const Spread& spread, const std::vector<int32_t>& ids) {
  Plan plan;
  plan.rows.assign(ids.size(), -1);
  for (int64_t e = spread.first; e < spread.first + spread.here; ++e) {
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != e) continue;
      plan.rows[i] = static_cast<int32_t>(plan.order.size());
      plan.order.push_back(static_cast<int32_t>(i));
    }
    plan.offsets.push_back(static_cast<int32_t>(plan.order.size()));
  }
  plan.order.resize(ids.size(), -1);
  return plan;
}

ConstExpertPlan make_plan(CaseMemory& m, const Spread& spread) {
  const Plan plan = plan_of(spread, draw_experts(m.random(), spread));
  return {m.integers(Shape{spread.here + 1}, plan.offsets), m.integers(Shape{spread.tokens * spread.slots}, plan.order),
          m.integers(Shape{spread.tokens, spread.slots}, plan.rows)};
}

ConstTensor draw_zero_points(CaseMemory& m, int64_t count) {
  std::vector<int32_t> points(static_cast<size_t>(count));
  for (int32_t& point : points) point = static_cast<int32_t>(m.random().between(-128, 127));
  return m.integers(Shape{count}, points);
}

float static_scales(Random& random) { return static_cast<float>((0.5 + random.uniform()) / 64.0); }

// x in the order of rows: scales per tensor are each expert's own.
ConstQuantTensor make_rows(CaseMemory& m, const QuantFormat& format, const Spread& spread, int64_t columns) {
  const int64_t rows = spread.tokens * spread.slots;
  ConstQuantTensor x = m.quant_input(format, rows, columns, draw_layout(m.random()));
  if (format.granularity != Granularity::kTensor) return x;
  x.scale = m.weight(DType::kF32, Shape{spread.here}, static_scales);
  if (format.zero_point) x.zero_point = draw_zero_points(m, spread.here);
  return x;
}

Tensor unlocked(const ConstTensor& tensor) {
  return Tensor(const_cast<std::byte*>(tensor.bytes), tensor.dtype, tensor.shape);
}

// An output in the order of rows. Where rows of other ranks stay as they are, it must be plain.
QuantTensor make_output(CaseMemory& m, const QuantFormat& format, const Spread& spread, int64_t columns, Bound bound,
                        double share) {
  const int64_t rows = spread.tokens * spread.slots;
  const Layout layout = draw_layout(m.random());
  if (!format.quantized()) {
    const Bound rounded = rounded_bound(format.dtype, bound);
    return QuantTensor(m.in_out("out", format.dtype, Shape{rows, columns}, rounded, normal_values, layout));
  }
  if (format.granularity != Granularity::kTensor)
    return m.quant_output("out", format, rows, columns, bound, share, layout);
  QuantTensor out(m.output("out", format.dtype, Shape{rows, columns}, {.share_of_neighbours = share}, layout),
                  unlocked(m.weight(DType::kF32, Shape{spread.here}, static_scales)), format);
  if (format.zero_point) out.zero_point = unlocked(draw_zero_points(m, spread.here));
  return out;
}

ConstQuantTensor make_experts(CaseMemory& m, const QuantFormat& format, int64_t experts, int64_t n, int64_t k) {
  const bool coded = format.quantized();
  ConstQuantTensor weight(
      m.weight(format.dtype, Shape{experts, n, k}, [=](Random& r) { return (coded ? 64.0f : 1.0f) * r.normal(); }), {},
      format);
  if (coded) weight.scale = m.weight(DType::kF32, format.stack_scale_shape(experts, n, k), static_scales);
  return weight;
}

ExpertMatmulOp make_expert_matmul(CaseMemory& m, const MatmulFormats& formats, const Spread& spread,
                                  ExpertMatmulOp::Order order) {
  const int64_t n = m.random().pick<int64_t>({1, 3, 8, 31, 48, 130});
  const int64_t k = m.random().pick<int64_t>({1, 5, 32, 63, 96, 200, 576});
  const double root = std::sqrt(static_cast<double>(k));
  const Bound bound{.absolute = 1e-6 * root + 5e-8 * static_cast<double>(k), .relative = 1e-6};  // as of matmul
  ExpertMatmulOp op{.out = make_output(m, plain_format(formats.out), spread, n, bound, 0.0).data,
                    .x = {},
                    .order = order,
                    .weight = make_experts(m, formats.weight, spread.here, n, k),
                    .plan = make_plan(m, spread)};
  op.x = order == ExpertMatmulOp::Order::kByRow ? make_rows(m, formats.x, spread, k)
                                                : m.quant_input(formats.x, spread.tokens, k, draw_layout(m.random()));
  return op;
}

struct RoutingCase {
  std::string name;
  ExpertRouting routing;
  bool corrected = false;
};

std::vector<RoutingCase> routing_cases() {
  using R = ExpertRouting;
  std::vector<RoutingCase> list;
  for (const R::Scoring scoring : {R::Scoring::kSoftmax, R::Scoring::kSigmoid}) {
    for (const R::Weights weights : {R::Weights::kAsScored, R::Weights::kRenormalised}) {
      const std::string name = fmt::format("{}{}", scoring == R::Scoring::kSoftmax ? "softmax" : "sigmoid",
                                           weights == R::Weights::kAsScored ? "" : ", renormalised");
      list.push_back({name, {.scoring = scoring, .weights = weights}});
      list.push_back({name + ", corrected", {.scoring = scoring, .weights = weights, .scaling_factor = 2.5f}, true});
      list.push_back(
          {name + ", groups", {.scoring = scoring, .weights = weights, .num_groups = 4, .num_chosen_groups = 2}});
      list.push_back({name + ", groups of two largest, corrected",
                      {.scoring = scoring,
                       .group_score = R::GroupScore::kTwoLargest,
                       .weights = weights,
                       .num_groups = 8,
                       .num_chosen_groups = 3,
                       .scaling_factor = 0.5f},
                      true});
    }
  }
  return list;
}

// Ties, and rows that are broken.
ConstTensor draw_logits(CaseMemory& m, Shape shape) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return m.input(
      DType::kF32, shape,
      [=](Random& r) {
        if (r.between(0, 300) == 0) return r.pick({std::nanf(""), kInfinity, -kInfinity});
        return static_cast<float>(r.between(-16, 16)) / 4.0f;
      },
      draw_layout(m.random()));
}

RouteExpertsOp make_route(CaseMemory& m, const RoutingCase& what, bool shared) {
  const int64_t tokens = m.random().pick<int64_t>({1, 1, 2, 7, 40}),
                experts = m.random().pick<int64_t>({8, 16, 64, 160});
  const int64_t k = m.random().pick<int64_t>({1, 2, 3});
  const int64_t first = shared ? m.random().between(0, experts - 1) : 0;
  const int64_t here = shared ? m.random().between(0, experts - first) : experts;
  RouteExpertsOp op{
      .expert_ids = m.output("expert_ids", DType::kI32, Shape{tokens, k}, kExact),
      .weights = m.output("weights", DType::kF32, Shape{tokens, k}, {.absolute = 1e-30, .relative = 1e-6}),
      .plan = {m.output("offsets", DType::kI32, Shape{here + 1}, kExact),
               m.output("order", DType::kI32, Shape{tokens * k}, kExact),
               m.output("rows", DType::kI32, Shape{tokens, k}, kExact)},
      .x = draw_logits(m, Shape{tokens, experts}),
      .correction = {},
      .routing = what.routing,
      .first_expert = first};
  if (what.corrected)
    op.correction =
        m.weight(DType::kF32, Shape{experts}, [](Random& r) { return static_cast<float>(r.between(-8, 8)) / 8.0f; });
  return op;
}

}  // namespace

template <>
std::vector<Case<RouteExpertsOp>> cases() {
  std::vector<Case<RouteExpertsOp>> list;
  for (const RoutingCase& what : routing_cases()) {
    for (const bool shared : {false, true}) {
      for (int repeat = 0; repeat < 4; ++repeat) {
        list.push_back({fmt::format("{}{} {}", what.name, shared ? ", some experts" : "", repeat),
                        [=](CaseMemory& m) { return make_route(m, what, shared); }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<ExpertMatmulOp>> cases() {
  using Order = ExpertMatmulOp::Order;
  std::vector<Case<ExpertMatmulOp>> list;
  for (const auto& [x, weight] : matmul_formats()) {
    for (const Order order : {Order::kByToken, Order::kByRow}) {
      if (order == Order::kByToken && x.granularity == Granularity::kTensor) continue;
      for (const bool shared : {false, true}) {
        const MatmulFormats formats{x, weight, shared ? DType::kBF16 : DType::kF32};
        const std::string name = fmt::format("{} x {}, by {}", x.to_string(), weight.to_string(),
                                             order == Order::kByToken ? "token" : "row");
        list.push_back({fmt::format("{} to bf16, some experts", name),
                        [=](CaseMemory& m) { return make_expert_matmul(m, formats, draw_share(m.random()), order); }});
        list.push_back({fmt::format("{} to f32, {}", name, shared ? "some experts" : "all"), [=](CaseMemory& m) {
                          const Spread spread = shared ? draw_share(m.random()) : draw_spread(m.random());
                          return make_expert_matmul(m, {x, weight, DType::kF32}, spread, order);
                        }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<ExpertQuantizeOp>> cases() {
  std::vector<Case<ExpertQuantizeOp>> list;
  for (const DType x : kActivations) {
    for (const QuantFormat& out : {kF8StaticTensor, kI8StaticTensor, kI8AsymmetricTensor}) {
      for (int repeat = 0; repeat < 3; ++repeat) {
        list.push_back({fmt::format("{} to {} {}", dtype_name(x), out.to_string(), repeat), [=](CaseMemory& m) {
                          const Spread spread = draw_spread(m.random());
                          const int64_t k = m.random().pick<int64_t>({1, 7, 32, 257});
                          return ExpertQuantizeOp{
                              .out = make_output(m, out, spread, k, kExact, 0.0),
                              .x = m.input(x, Shape{spread.tokens, k}, special_values, draw_layout(m.random())),
                              .plan = make_plan(m, spread)};
                        }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<ExpertSiluAndMulOp>> cases() {
  std::vector<Case<ExpertSiluAndMulOp>> list;
  for (const DType x : kActivations) {
    for (const QuantFormat& out : kOutputFormats) {
      for (const bool shared : {false, true}) {
        if (shared && out.quantized()) continue;
        list.push_back({fmt::format("{} to {}{}", dtype_name(x), out.to_string(), shared ? ", some experts" : ""),
                        [=](CaseMemory& m) {
                          const Spread spread = shared ? draw_share(m.random()) : draw_spread(m.random());
                          const int64_t i = m.random().pick<int64_t>({1, 8, 33, 257});
                          const Bound bound{.absolute = 1e-7, .relative = 2e-6};
                          return ExpertSiluAndMulOp{.out = make_output(m, out, spread, i, bound, 0.01),
                                                    .x = m.input(x, Shape{spread.tokens * spread.slots, 2 * i},
                                                                 normal_values, draw_layout(m.random())),
                                                    .plan = make_plan(m, spread)};
                        }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<CombineExpertsOp>> cases() {
  std::vector<Case<CombineExpertsOp>> list;
  for (const DType dtype : kActivations) {
    for (const std::string_view shared : {"", ", shared", ", shared and gated"}) {
      for (int repeat = 0; repeat < 4; ++repeat) {
        list.push_back({fmt::format("{}{} {}", dtype_name(dtype), shared, repeat), [=](CaseMemory& m) {
                          const Spread spread = draw_share(m.random());
                          const int64_t h = m.random().pick<int64_t>({1, 7, 32, 100, 257});
                          const Shape shape{spread.tokens, h};
                          const Bound bound = rounded_bound(dtype, {.absolute = 2e-6, .relative = 2e-6});
                          CombineExpertsOp op{.out = m.output("out", dtype, shape, bound, draw_layout(m.random())),
                                              .y = m.input(dtype, Shape{spread.tokens * spread.slots, h}, normal_values,
                                                           draw_layout(m.random())),
                                              .weights = m.input(DType::kF32, Shape{spread.tokens, spread.slots}),
                                              .rows = make_plan(m, spread).rows,
                                              .shared = {},
                                              .shared_gate = {}};
                          if (!shared.empty())
                            op.shared = m.input(dtype, shape, normal_values, draw_layout(m.random()));
                          if (shared.ends_with("gated")) op.shared_gate = m.input(DType::kF32, Shape{spread.tokens, 1});
                          return op;
                        }});
      }
    }
  }
  return list;
}

}  // namespace octet::ops_test
