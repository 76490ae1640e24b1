// Cases of the ops that work row by row.
#include <cmath>
#include <limits>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

// Scales per token that the caller gives: quantize alone takes them.
constexpr QuantFormat kF8GivenToken{.dtype = DType::kF8E4M3, .granularity = Granularity::kToken};
constexpr DType kActivations[] = {DType::kF32, DType::kBF16};

int64_t draw_rows(Random& random) { return random.pick<int64_t>({1, 2, 3, 5, 8, 17}); }
int64_t draw_columns(Random& random) {
  return random.pick<int64_t>({1, 3, 7, 8, 15, 16, 31, 32, 33, 64, 100, 257, 576});
}
Layout draw_layout(Random& random) { return random.coin() ? Layout::kStrided : Layout::kContiguous; }

// Values of a row that a quantiser must get right: zeros, NaN, infinities, the subnormal, the largest.
float special_values(Random& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  switch (random.between(0, 40)) {
    case 0:
      return std::numeric_limits<float>::quiet_NaN();
    case 1:
      return random.coin() ? kInfinity : -kInfinity;
    case 2:
      return -0.0f;
    case 3:
      return 1e-42f;
    case 4:
      return random.coin() ? 3e38f : -3e38f;
    default:
      return random.normal() * std::exp2(static_cast<float>(random.between(-30, 10)));
  }
}

}  // namespace

// Rows with ties, with nothing but minus infinities, and with each value that breaks a row, anywhere in it.
template <>
std::vector<Case<ArgmaxOp>> cases() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<Case<ArgmaxOp>> list;
  for (const int64_t columns : {1, 2, 31, 32, 100, 1023, 1024, 4099, 49152}) {
    for (const std::string_view values : {"normal", "few", "negative", "broken"}) {
      list.push_back({fmt::format("{} columns, {} values", columns, values), [=](CaseMemory& m) {
                        const int64_t odds = 2 * columns;
                        const Fill fill = [=](Random& r) {
                          if (values == "few") return static_cast<float>(r.between(-3, 3));
                          if (values == "negative") return r.coin() ? -kInfinity : -1.0f - std::abs(r.normal());
                          if (values == "broken" && r.between(0, odds) == 0)
                            return r.coin() ? kInfinity : std::numeric_limits<float>::quiet_NaN();
                          return values == "broken" && columns < 100 ? -kInfinity : r.normal();
                        };
                        const int64_t rows = draw_rows(m.random());
                        return ArgmaxOp{.index = m.output("index", DType::kI32, Shape{rows}, kExact),
                                        .x = m.input(DType::kF32, Shape{rows, columns}, fill, draw_layout(m.random()))};
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<EmbeddingOp>> cases() {
  std::vector<Case<EmbeddingOp>> list;
  for (const DType out : kActivations) {
    for (const DType table : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const int64_t first_id : {0, 40}) {
        list.push_back(
            {fmt::format("{} from {}, first id {}", dtype_name(out), dtype_name(table), first_id), [=](CaseMemory& m) {
               const int64_t tokens = draw_rows(m.random());
               const int64_t hidden = draw_columns(m.random());
               std::vector<int32_t> ids;
               for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(m.random().between(-2, 110)));
               return EmbeddingOp{.out = m.output("out", out, Shape{tokens, hidden}, kExact, draw_layout(m.random())),
                                  .table = m.input(table, Shape{37, hidden}),
                                  .token_ids = m.integers(Shape{tokens}, ids),
                                  .first_id = first_id};
             }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<GatherRowsOp>> cases() {
  std::vector<Case<GatherRowsOp>> list;
  for (const DType dtype : kActivations) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      list.push_back({fmt::format("{} {}", dtype_name(dtype), repeat), [=](CaseMemory& m) {
                        const int64_t hidden = draw_columns(m.random());
                        const int64_t tokens = draw_rows(m.random());
                        std::vector<int32_t> rows(static_cast<size_t>(draw_rows(m.random())));
                        for (int32_t& row : rows) row = static_cast<int32_t>(m.random().between(0, tokens - 1));
                        const auto num_rows = static_cast<int64_t>(rows.size());
                        return GatherRowsOp{
                            .out = m.output("out", dtype, Shape{num_rows, hidden}, kExact, draw_layout(m.random())),
                            .x = m.input(dtype, Shape{tokens, hidden}, normal_values, draw_layout(m.random())),
                            .rows = m.integers(Shape{num_rows}, rows)};
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<QuantizeOp>> cases() {
  std::vector<Case<QuantizeOp>> list;
  for (const DType x : kActivations) {
    for (const QuantFormat& out :
         {kOutputFormats[0], kOutputFormats[1], kF8DynamicToken, kF8StaticTensor, kF8GivenToken}) {
      for (const std::string_view values : {"normal", "special", "zero", "tiny"}) {
        list.push_back({fmt::format("{} to {}, {} values", dtype_name(x), out.to_string(), values), [=](CaseMemory& m) {
                          const Shape shape{draw_rows(m.random()), draw_columns(m.random())};
                          const Fill fill = values == "normal"    ? Fill(normal_values)
                                            : values == "special" ? Fill(special_values)
                                            : values == "zero"    ? Fill([](Random&) { return 0.0f; })
                                                                  : Fill([](Random& r) { return 1e-5f * r.normal(); });
                          // Not only close: the same codes and scales, to the bit.
                          return QuantizeOp{.out = m.quant_output("out", out, shape[0], shape[1], kExact, 0.0,
                                                                  draw_layout(m.random())),
                                            .x = m.input(x, shape, fill, draw_layout(m.random()))};
                        }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<RmsNormOp>> cases() {
  std::vector<Case<RmsNormOp>> list;
  for (const DType residual : kActivations) {
    for (const QuantFormat& out : kOutputFormats) {
      for (const bool adds : {false, true}) {
        for (int repeat = 0; repeat < 3; ++repeat) {
          list.push_back(
              {fmt::format("{} to {}, {} {}", dtype_name(residual), out.to_string(), adds ? "adds" : "alone", repeat),
               [=](CaseMemory& m) {
                 const Shape shape{draw_rows(m.random()), draw_columns(m.random())};
                 const Bound bound{.absolute = 1e-6, .relative = 2e-6};
                 RmsNormOp op{
                     .out = m.quant_output("out", out, shape[0], shape[1], bound, 0.01, draw_layout(m.random())),
                     .x = {},
                     .residual = m.in_out("residual", residual, shape, kExact, normal_values, draw_layout(m.random())),
                     .weight = m.input(DType::kF32, Shape{shape[1]}),
                     .epsilon = m.random().pick({1e-6f, 1e-5f})};
                 if (adds)
                   op.x = m.input(m.random().coin() ? residual : DType::kF32, shape, normal_values,
                                  draw_layout(m.random()));
                 return op;
               }});
        }
      }
    }
  }
  return list;
}

template <>
std::vector<Case<SiluAndMulOp>> cases() {
  std::vector<Case<SiluAndMulOp>> list;
  for (const DType x : kActivations) {
    for (const QuantFormat& out : kOutputFormats) {
      for (const float magnitude : {1.0f, 30.0f}) {
        list.push_back(
            {fmt::format("{} to {}, magnitude {}", dtype_name(x), out.to_string(), magnitude), [=](CaseMemory& m) {
               const Shape shape{draw_rows(m.random()), draw_columns(m.random())};
               const Bound bound{.absolute = 1e-7, .relative = 2e-6};
               return SiluAndMulOp{
                   .out = m.quant_output("out", out, shape[0], shape[1], bound, 0.01, draw_layout(m.random())),
                   .x = m.input(
                       x, Shape{shape[0], 2 * shape[1]}, [=](Random& r) { return magnitude * r.normal(); },
                       draw_layout(m.random()))};
             }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<RopeTableOp>> cases() {
  std::vector<Case<RopeTableOp>> list;
  for (const int64_t half : {1, 4, 7, 16, 32, 50, 64}) {
    for (const float ntk_factor : {0.0f, 4.0f}) {
      const float factor = ntk_factor > 0.0f ? 1.0f : 1.2079442f;
      list.push_back(
          {fmt::format("half {}, factor {}, NTK {}", half, factor, ntk_factor), [=](CaseMemory& m) {
             const int64_t tokens = draw_rows(m.random());
             std::vector<int32_t> positions(static_cast<size_t>(tokens));
             for (int32_t& p : positions)
               p = static_cast<int32_t>(m.random().between(0, m.random().pick<int64_t>({1, 100, 8191, 131071})));
             int64_t i = 0;
             const Bound bound{.absolute = 5e-7, .relative = 0.0};
             return RopeTableOp{
                 .cos = m.output("cos", DType::kF32, Shape{tokens, half}, bound),
                 .sin = m.output("sin", DType::kF32, Shape{tokens, half}, bound),
                 .positions = m.integers(Shape{tokens}, positions),
                 .inv_freq = m.input(
                     DType::kF32, Shape{half},
                     [&](Random&) { return std::pow(1e5f, -static_cast<float>(i++) / static_cast<float>(half)); }),
                 .attention_factor = factor,
                 .ntk_factor = ntk_factor,
                 .ntk_original_max = ntk_factor > 0.0f ? 4096 : 0};
           }});
    }
  }
  return list;
}

}  // namespace octet::ops_test
