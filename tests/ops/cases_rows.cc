// Cases of the ops that work row by row.
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

int64_t draw_rows(Random& random) { return random.pick<int64_t>({1, 2, 3, 5, 8, 17}); }
int64_t draw_columns(Random& random) {
  return random.pick<int64_t>({1, 3, 7, 8, 15, 16, 31, 32, 33, 64, 100, 257, 576});
}
Matrix draw_matrix(Random& random) {
  const int64_t rows = draw_rows(random);
  return {rows, draw_columns(random)};
}

}  // namespace

Layout draw_layout(Random& random) { return random.coin() ? Layout::kStrided : Layout::kContiguous; }

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

EmbeddingOp make_embedding(CaseMemory& m, DType out, DType table, Matrix size, int64_t first_id) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < size.rows; ++t) ids.push_back(static_cast<int32_t>(m.random().between(-2, 110)));
  return EmbeddingOp{.out = m.output("out", out, Shape{size.rows, size.columns}, kExact, draw_layout(m.random())),
                     .table = m.weight(table, Shape{37, size.columns}),
                     .token_ids = m.integers(Shape{size.rows}, ids),
                     .first_id = first_id};
}

GatherRowsOp make_gather_rows(CaseMemory& m, DType dtype, Matrix x, int64_t num_rows) {
  std::vector<int32_t> rows(static_cast<size_t>(num_rows));
  for (int32_t& row : rows) row = static_cast<int32_t>(m.random().between(0, x.rows - 1));
  return GatherRowsOp{.out = m.output("out", dtype, Shape{num_rows, x.columns}, kExact, draw_layout(m.random())),
                      .x = m.input(dtype, Shape{x.rows, x.columns}, normal_values, draw_layout(m.random())),
                      .rows = m.integers(Shape{num_rows}, rows)};
}

MoveIntsOp make_move_ints(CaseMemory& m, int64_t most) {
  Random& random = m.random();
  const auto numbers = [&](int64_t count, int64_t end) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t& value : values) value = static_cast<int32_t>(random.between(0, end - 1));
    return values;
  };
  // Every so manieth place of `end`: distinct ones.
  const auto places = [&](int64_t count, int64_t end) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int32_t>(static_cast<int64_t>(i) * end / count);
    return values;
  };
  const auto list = [&](const std::vector<int32_t>& values) {
    return m.integers(Shape{static_cast<int64_t>(values.size())}, values);
  };
  const int64_t copied = random.between(1, most), scattered = random.between(1, most), both = random.between(1, copied);
  const Tensor copy = m.output("copy", DType::kI32, Shape{copied}, kExact);
  const Tensor table = m.in_out("table", numbers(scattered * 3, 1 << 30));
  MoveIntsOp op;
  op.moves[0] = {.to = copy, .from = list(numbers(copied, 1 << 30)), .to_index = {}, .from_index = {}};
  op.moves[1] = {.to = table,
                 .from = list(numbers(scattered, 1 << 30)),
                 .to_index = list(places(scattered, scattered * 3)),
                 .from_index = {}};
  if (random.coin()) {
    op.moves[2] = {.to = copy,
                   .from = list(numbers(7, 1 << 30)),
                   .to_index = list(places(both, copied)),
                   .from_index = list(numbers(both, 7))};
  } else {
    op.moves[2] = {.to = m.output("gathered", DType::kI32, Shape{both}, kExact),
                   .from = copy,
                   .to_index = {},
                   .from_index = list(numbers(both, copied))};
  }
  return op;
}

QuantizeOp make_quantize(CaseMemory& m, DType x, const QuantFormat& out, Matrix size, const Fill& fill) {
  // Not only close: the same codes and scales, to the bit.
  return QuantizeOp{.out = m.quant_output("out", out, size.rows, size.columns, kExact, 0.0, draw_layout(m.random())),
                    .x = m.input(x, Shape{size.rows, size.columns}, fill, draw_layout(m.random()))};
}

RmsNormOp make_rms_norm(CaseMemory& m, DType residual, const QuantFormat& out, Matrix size, bool adds) {
  const Shape shape{size.rows, size.columns};
  const Bound bound{.absolute = 1e-6, .relative = 2e-6};
  RmsNormOp op{.out = m.quant_output("out", out, size.rows, size.columns, bound, 0.01, draw_layout(m.random())),
               .x = {},
               .residual = m.in_out("residual", residual, shape, kExact, normal_values, draw_layout(m.random())),
               .weight = m.weight(DType::kF32, Shape{size.columns}),
               .epsilon = m.random().pick({1e-6f, 1e-5f})};
  if (adds) op.x = m.input(m.random().coin() ? residual : DType::kF32, shape, normal_values, draw_layout(m.random()));
  return op;
}

SiluAndMulOp make_silu_and_mul(CaseMemory& m, DType x, const QuantFormat& out, Matrix size, float magnitude) {
  const Bound bound{.absolute = 1e-7, .relative = 2e-6};
  return SiluAndMulOp{.out = m.quant_output("out", out, size.rows, size.columns, bound, 0.01, draw_layout(m.random())),
                      .x = m.input(
                          x, Shape{size.rows, 2 * size.columns}, [=](Random& r) { return magnitude * r.normal(); },
                          draw_layout(m.random()))};
}

RopeTableOp make_rope_table(CaseMemory& m, int64_t tokens, int64_t half, float ntk_factor) {
  std::vector<int32_t> positions(static_cast<size_t>(tokens));
  for (int32_t& p : positions)
    p = static_cast<int32_t>(m.random().between(0, m.random().pick<int64_t>({1, 100, 8191, 131071})));
  int64_t i = 0;
  const Fill frequencies = [&](Random&) { return std::pow(1e5f, -static_cast<float>(i++) / static_cast<float>(half)); };
  const Bound bound{.absolute = 5e-7, .relative = 0.0};
  return RopeTableOp{.cos = m.output("cos", DType::kF32, Shape{tokens, half}, bound),
                     .sin = m.output("sin", DType::kF32, Shape{tokens, half}, bound),
                     .positions = m.integers(Shape{tokens}, positions),
                     .inv_freq = m.weight(DType::kF32, Shape{half}, frequencies),
                     .attention_factor = ntk_factor > 0.0f ? 1.0f : 1.2079442f,
                     .ntk_factor = ntk_factor,
                     .ntk_original_max = ntk_factor > 0.0f ? 4096 : 0};
}

SampleOp make_sample(CaseMemory& m, Matrix size, const Fill& fill) {
  Random& random = m.random();
  std::vector<RowDraw> draws(static_cast<size_t>(size.rows));
  for (RowDraw& draw : draws) {
    if (random.between(0, 4) == 0) continue;  // greedy
    const float temperature = random.pick({0.01f, 0.5f, 1.0f, 3.0f});
    draw.inverse_temperature = 1.0f / temperature;
    draw.uniform = random.pick({random.next(), random.next(), random.next(), uint64_t{0}, ~uint64_t{0}});
    if (random.coin()) draw.top_k = static_cast<int32_t>(random.pick<int64_t>({1, 2, 5, 50, 1000, size.columns}));
    if (random.coin()) draw.top_p = random.pick({0.0, 1e-6, 0.3, 0.9, 0.999});
    if (random.coin()) draw.min_gap = std::log(random.pick({0.001f, 0.05f, 0.5f, 1.0f})) * temperature;
  }
  std::vector<int32_t> words(draws.size() * kRowDrawWords);
  if (!draws.empty()) std::memcpy(words.data(), draws.data(), words.size() * sizeof(int32_t));
  return {.index = m.output("index", DType::kI32, Shape{size.rows}, kExact),
          .x = m.input(DType::kF32, Shape{size.rows, size.columns}, fill, draw_layout(random)),
          .draws = m.integers(Shape{size.rows, kRowDrawWords}, words)};
}

// Rows with ties, with nothing but minus infinities, and with each value that breaks a row, anywhere in it.
template <>
std::vector<Case<SampleOp>> cases() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<Case<SampleOp>> list;
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
                        return make_sample(m, {.rows = draw_rows(m.random()), .columns = columns}, fill);
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
            {fmt::format("{} from {}, first id {}", dtype_name(out), dtype_name(table), first_id),
             [=](CaseMemory& m) { return make_embedding(m, out, table, draw_matrix(m.random()), first_id); }});
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
                        const Matrix x = draw_matrix(m.random());
                        return make_gather_rows(m, dtype, x, draw_rows(m.random()));
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<MoveIntsOp>> cases() {
  std::vector<Case<MoveIntsOp>> list;
  for (int repeat = 0; repeat < 6; ++repeat) {
    list.push_back({fmt::format("{}", repeat), [](CaseMemory& m) { return make_move_ints(m, 40); }});
  }
  return list;
}

template <>
std::vector<Case<QuantizeOp>> cases() {
  const std::vector<std::pair<std::string, Fill>> fills = {{"normal", normal_values},
                                                           {"special", special_values},
                                                           {"zero", [](Random&) { return 0.0f; }},
                                                           {"tiny", [](Random& r) { return 1e-5f * r.normal(); }}};
  std::vector<Case<QuantizeOp>> list;
  for (const DType x : kActivations) {
    std::vector<QuantFormat> outputs(std::begin(kOutputFormats), std::end(kOutputFormats));
    outputs.insert(outputs.end(), {kF8GivenToken, kI8GivenToken});
    for (const QuantFormat& out : outputs) {
      for (const auto& [name, fill] : fills) {
        list.push_back(
            {fmt::format("{} to {}, {} values", dtype_name(x), out.to_string(), name),
             [=, fill = fill](CaseMemory& m) { return make_quantize(m, x, out, draw_matrix(m.random()), fill); }});
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
               [=](CaseMemory& m) { return make_rms_norm(m, residual, out, draw_matrix(m.random()), adds); }});
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
            {fmt::format("{} to {}, magnitude {}", dtype_name(x), out.to_string(), magnitude),
             [=](CaseMemory& m) { return make_silu_and_mul(m, x, out, draw_matrix(m.random()), magnitude); }});
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
      list.push_back({fmt::format("half {}, NTK {}", half, ntk_factor),
                      [=](CaseMemory& m) { return make_rope_table(m, draw_rows(m.random()), half, ntk_factor); }});
    }
  }
  return list;
}

}  // namespace octet::ops_test
