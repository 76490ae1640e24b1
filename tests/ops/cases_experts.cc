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

// Up to 1 for codes of about 64: of a case's many outputs the worst is to stay within matmul_bound, too.
float static_scales(Random& random) { return static_cast<float>((0.5 + random.uniform() / 2.0) / 64.0); }

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

ExpertMatmulOp make_expert_matmul(CaseMemory& m, const MatmulFormats& formats, const Spread& spread, int64_t n,
                                  int64_t k) {
  const Bound bound = matmul_bound({formats.x, formats.weight, DType::kF32}, k, m.on_gpu());
  return {.out = make_output(m, plain_format(formats.out), spread, n, bound, 0.0).data,
          .x = make_rows(m, formats.x, spread, k),
          .weight = make_experts(m, formats.weight, spread.here, n, k),
          .plan = make_plan(m, spread)};
}
ExpertMatmulOp make_expert_matmul(CaseMemory& m, const MatmulFormats& formats, const Spread& spread) {
  const int64_t n = m.random().pick<int64_t>({1, 3, 8, 31, 48, 130});
  const int64_t k = m.random().pick<int64_t>({1, 5, 32, 63, 96, 200, 576});
  return make_expert_matmul(m, formats, spread, n, k);
}

ExpertPermuteOp make_permute(CaseMemory& m, DType x, const QuantFormat& out, const Spread& spread, int64_t k) {
  return {.out = make_output(m, out, spread, k, kExact, 0.0),
          .x = m.input(x, Shape{spread.tokens, k}, special_values, draw_layout(m.random())),
          .plan = make_plan(m, spread)};
}

ExpertSiluAndMulOp make_silu(CaseMemory& m, DType x, const QuantFormat& out, const Spread& spread, int64_t i) {
  const Bound bound{.absolute = 1e-7, .relative = 2e-6};
  return {.out = make_output(m, out, spread, i, bound, 0.01),
          .x = m.input(x, Shape{spread.tokens * spread.slots, 2 * i}, normal_values, draw_layout(m.random())),
          .plan = make_plan(m, spread)};
}

CombineExpertsOp make_combine(CaseMemory& m, DType dtype, std::string_view shared, const Spread& spread, int64_t h) {
  const Shape shape{spread.tokens, h};
  const Bound bound = rounded_bound(dtype, {.absolute = 2e-6, .relative = 2e-6});
  CombineExpertsOp op{
      .out = m.output("out", dtype, shape, bound, draw_layout(m.random())),
      .y = m.input(dtype, Shape{spread.tokens * spread.slots, h}, normal_values, draw_layout(m.random())),
      .weights = m.input(DType::kF32, Shape{spread.tokens, spread.slots}),
      .rows = make_plan(m, spread).rows,
      .shared = {},
      .shared_gate = {}};
  if (!shared.empty()) op.shared = m.input(dtype, shape, normal_values, draw_layout(m.random()));
  if (shared.ends_with("gated")) op.shared_gate = m.input(DType::kF32, Shape{spread.tokens, 1});
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

RouteExpertsOp make_route(CaseMemory& m, const RoutingCase& what, int64_t tokens, int64_t experts, int64_t k,
                          int64_t first, int64_t here) {
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
RouteExpertsOp make_route(CaseMemory& m, const RoutingCase& what, bool shared) {
  const int64_t tokens = m.random().pick<int64_t>({1, 1, 2, 7, 40}),
                experts = m.random().pick<int64_t>({8, 16, 64, 160});
  const int64_t k = m.random().pick<int64_t>({1, 2, 3});
  const int64_t first = shared ? m.random().between(0, experts - 1) : 0;
  return make_route(m, what, tokens, experts, k, first, shared ? m.random().between(0, experts - first) : experts);
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
  std::vector<Case<ExpertMatmulOp>> list;
  for (const auto& [x, weight] : matmul_formats()) {
    for (const bool shared : {false, true}) {
      for (const DType out : kActivations) {
        const MatmulFormats formats{x, weight, out};
        list.push_back({fmt::format("{} x {} to {}, {}", x.to_string(), weight.to_string(), dtype_name(out),
                                    shared ? "some experts" : "all"),
                        [=](CaseMemory& m) {
                          const Spread spread = shared ? draw_share(m.random()) : draw_spread(m.random());
                          return make_expert_matmul(m, formats, spread);
                        }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<ExpertPermuteOp>> cases() {
  std::vector<Case<ExpertPermuteOp>> list;
  for (const DType x : kActivations) {
    for (const QuantFormat& out : kOutputFormats) {
      if (!out.quantized() && out.dtype != x) continue;
      for (const bool shared : {false, true}) {
        if (shared && out.quantized()) continue;
        list.push_back({fmt::format("{} to {}{}", dtype_name(x), out.to_string(), shared ? ", some experts" : ""),
                        [=](CaseMemory& m) {
                          const Spread spread = shared ? draw_share(m.random()) : draw_spread(m.random());
                          return make_permute(m, x, out, spread, m.random().pick<int64_t>({1, 7, 32, 257, 512}));
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
                          return make_silu(m, x, out, spread, m.random().pick<int64_t>({1, 8, 33, 257, 384}));
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
                          return make_combine(m, dtype, shared, draw_share(m.random()),
                                              m.random().pick<int64_t>({1, 7, 32, 100, 257}));
                        }});
      }
    }
  }
  return list;
}

// ---- for GPUs, in the shapes of real models, drawn small enough for the reference kernels ----

template <>
std::vector<Case<RouteExpertsOp>> large_cases() {
  std::vector<Case<RouteExpertsOp>> list;
  for (const RoutingCase& what : routing_cases()) {
    for (const int64_t tokens : {33, 300, 2500}) {
      list.push_back({fmt::format("large, {} of {} tokens", what.name, tokens), [=](CaseMemory& m) {
                        const int64_t experts = m.random().pick<int64_t>({8, 64, 128, 256});
                        return make_route(m, what, tokens, experts, std::min<int64_t>(experts / 4, 8), 0, experts);
                      }});
    }
  }
  return list;
}

namespace {

// Few tokens an expert, some, and more than a tile's.
constexpr Spread kSpreads[] = {
    {.tokens = 1, .slots = 2, .experts = 8, .here = 8},
    {.tokens = 5, .slots = 2, .experts = 8, .here = 8},
    {.tokens = 15, .slots = 4, .experts = 40, .here = 40},
    {.tokens = 30, .slots = 2, .experts = 8, .here = 8},
    {.tokens = 100, .slots = 2, .experts = 4, .here = 4},
    {.tokens = 60, .slots = 4, .experts = 40, .here = 40},
    {.tokens = 200, .slots = 2, .experts = 3, .here = 3},
    {.tokens = 330, .slots = 2, .experts = 2, .here = 2},
    {.tokens = 130, .slots = 2, .experts = 8, .first = 3, .here = 2},
};

std::string name_of(const Spread& spread) {
  return fmt::format("{} tokens, {} of {} experts", spread.tokens, spread.slots, spread.experts);
}

}  // namespace

template <>
std::vector<Case<ExpertMatmulOp>> large_cases() {
  struct Size {
    int64_t n, k;
  };
  const QuantFormat bf16 = plain_format(DType::kBF16);
  std::vector<Case<ExpertMatmulOp>> list;
  for (const auto& [x, weight] :
       {std::pair{kF8DynamicToken, kF8Channel}, std::pair{kF8StaticTensor, kF8Tensor},
        std::pair{kF8DynamicGroup, kF8Block}, std::pair{kI8DynamicToken, kI8Channel}, std::pair{bf16, bf16}}) {
    for (const Spread& spread : kSpreads) {
      for (const Size size : {Size{256, 1024}, Size{328, 768}, Size{64, 4096}}) {
        for (const DType out : {DType::kBF16, DType::kF32}) {
          if (out == DType::kF32 && size.n != 328) continue;
          if (size.k == 4096 && spread.tokens * spread.slots > 60) continue;
          const MatmulFormats formats{x, weight, out};
          list.push_back({fmt::format("large, {} x {} to {} [{}, {}], {}", x.to_string(), weight.to_string(),
                                      dtype_name(out), size.n, size.k, name_of(spread)),
                          [=](CaseMemory& m) { return make_expert_matmul(m, formats, spread, size.n, size.k); }});
        }
      }
    }
    const MatmulFormats wide{x, weight, DType::kBF16};
    list.push_back({fmt::format("large, {} x {}, many channels", x.to_string(), weight.to_string()),
                    [=](CaseMemory& m) { return make_expert_matmul(m, wide, kSpreads[3], 16640, 256); }});
  }
  return list;
}

template <>
std::vector<Case<ExpertPermuteOp>> large_cases() {
  std::vector<Case<ExpertPermuteOp>> list;
  for (const QuantFormat& out : {plain_format(DType::kBF16), kF8DynamicToken, kF8StaticTensor, kF8DynamicGroup}) {
    for (const Spread& spread : kSpreads) {
      if (out.quantized() && spread.here < spread.experts) continue;
      list.push_back({fmt::format("large, to {}, {}", out.to_string(), name_of(spread)), [=](CaseMemory& m) {
                        return make_permute(m, DType::kBF16, out, spread, m.random().pick<int64_t>({2048, 4096}));
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<ExpertSiluAndMulOp>> large_cases() {
  std::vector<Case<ExpertSiluAndMulOp>> list;
  for (const QuantFormat& out : {plain_format(DType::kBF16), kF8DynamicToken, kF8StaticTensor, kF8DynamicGroup}) {
    for (const Spread& spread : {kSpreads[0], kSpreads[1], kSpreads[5]}) {
      list.push_back({fmt::format("large, to {}, {}", out.to_string(), name_of(spread)), [=](CaseMemory& m) {
                        return make_silu(m, DType::kBF16, out, spread, m.random().pick<int64_t>({768, 2048, 14336}));
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<CombineExpertsOp>> large_cases() {
  std::vector<Case<CombineExpertsOp>> list;
  for (const std::string_view shared : {"", ", shared", ", shared and gated"}) {
    for (const Spread& spread : kSpreads) {
      list.push_back({fmt::format("large{}, {}", shared, name_of(spread)), [=](CaseMemory& m) {
                        return make_combine(m, DType::kBF16, shared, spread, m.random().pick<int64_t>({2048, 4096}));
                      }});
    }
  }
  return list;
}

}  // namespace octet::ops_test
