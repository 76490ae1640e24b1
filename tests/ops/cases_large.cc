// Cases in the shapes of real models. They are drawn small enough for the reference kernels to keep up: a second or two
// an op.
#include <cmath>
#include <tuple>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

constexpr int64_t kMostElements = 400'000;

// Hidden sizes from 576 to 16384, tokens from 1 to 300.
Matrix draw_hidden(Random& random) {
  const int64_t columns = random.pick<int64_t>({576, 1024, 2048, 3072, 4096, 5120, 8192, 16384});
  int64_t rows = random.pick<int64_t>({1, 2, 7, 33, 64, 130, 300});
  while (rows * columns > kMostElements) rows /= 2;
  return {rows, columns};
}
Matrix draw_intermediate(Random& random) {
  const int64_t columns = random.pick<int64_t>({1536, 3584, 7168, 14336, 28672});
  int64_t rows = random.pick<int64_t>({1, 3, 16, 50});
  while (rows * columns > kMostElements) rows /= 2;
  return {rows, columns};
}
constexpr Matrix kManyTokens{300, 4096};

}  // namespace

template <>
std::vector<Case<SampleOp>> large_cases() {
  std::vector<Case<SampleOp>> list;
  for (const float spread : {0.0f, 1.0f, 4.0f}) {
    list.push_back({fmt::format("large vocabulary, values within {}", spread), [=](CaseMemory& m) {
                      return make_sample(m, {.rows = 9, .columns = 128256},
                                         [=](Random& random) { return spread * random.normal(); });
                    }});
  }
  return list;
}

template <>
std::vector<Case<EmbeddingOp>> large_cases() {
  std::vector<Case<EmbeddingOp>> list;
  for (const DType table : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int repeat = 0; repeat < 2; ++repeat) {
      list.push_back({fmt::format("large, from {} {}", dtype_name(table), repeat), [=](CaseMemory& m) {
                        return make_embedding(m, DType::kBF16, table, draw_hidden(m.random()), 40);
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<GatherRowsOp>> large_cases() {
  std::vector<Case<GatherRowsOp>> list;
  for (int repeat = 0; repeat < 4; ++repeat) {
    list.push_back({fmt::format("large {}", repeat), [](CaseMemory& m) {
                      const Matrix x = draw_hidden(m.random());
                      return make_gather_rows(m, DType::kBF16, x, m.random().pick<int64_t>({1, 5, 40}));
                    }});
  }
  return list;
}

template <>
std::vector<Case<MoveIntsOp>> large_cases() {
  return {{"a step of prompts", [](CaseMemory& m) { return make_move_ints(m, 60'000); }}};
}

template <>
std::vector<Case<QuantizeOp>> large_cases() {
  std::vector<Case<QuantizeOp>> list;
  for (const QuantFormat& out : {kF8DynamicToken, kF8StaticTensor, kF8GivenToken, kF8DynamicGroup, kI8DynamicToken}) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      list.push_back({fmt::format("large, to {} {}", out.to_string(), repeat), [=](CaseMemory& m) {
                        const Matrix size = repeat < 2 ? draw_hidden(m.random()) : draw_intermediate(m.random());
                        return make_quantize(m, DType::kBF16, out, size,
                                             repeat % 2 == 0 ? Fill(normal_values) : Fill(special_values));
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<RmsNormOp>> large_cases() {
  std::vector<Case<RmsNormOp>> list;
  for (const QuantFormat& out : kOutputFormats) {
    for (int repeat = 0; repeat < 5; ++repeat) {
      list.push_back({fmt::format("large, to {} {}", out.to_string(), repeat), [=](CaseMemory& m) {
                        return make_rms_norm(m, DType::kBF16, out, draw_hidden(m.random()), repeat > 0);
                      }});
    }
  }
  list.push_back({"300 tokens of 4096",
                  [](CaseMemory& m) { return make_rms_norm(m, DType::kBF16, kF8DynamicToken, kManyTokens, true); }});
  return list;
}

template <>
std::vector<Case<SiluAndMulOp>> large_cases() {
  std::vector<Case<SiluAndMulOp>> list;
  for (const QuantFormat& out : kOutputFormats) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      list.push_back({fmt::format("large, to {} {}", out.to_string(), repeat), [=](CaseMemory& m) {
                        return make_silu_and_mul(m, DType::kBF16, out, draw_intermediate(m.random()), 3.0f);
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<RopeTableOp>> large_cases() {
  std::vector<Case<RopeTableOp>> list;
  for (const float ntk_factor : {0.0f, 4.0f}) {
    list.push_back({fmt::format("300 tokens, NTK {}", ntk_factor),
                    [=](CaseMemory& m) { return make_rope_table(m, 300, 64, ntk_factor); }});
  }
  return list;
}

template <>
std::vector<Case<RopeKvOp>> large_cases() {
  std::vector<Case<RopeKvOp>> list;
  for (const DType cache : kCaches) {
    for (const Heads& heads : {Heads{32, 8, 128}, Heads{8, 1, 256}, Heads{16, 16, 96}, Heads{9, 3, 64}}) {
      list.push_back(
          {fmt::format("large, to {}, {} heads of {}", dtype_name(cache), heads.num_heads, heads.head_dim),
           [=](CaseMemory& m) {
             const int64_t tokens = m.random().pick<int64_t>({1, 5, 64});
             const RopeForm form = m.random().pick({RopeForm::kPlain, RopeForm::kQueryAndKeyNorm, RopeForm::kInPlace});
             return make_rope_kv(m, DType::kBF16, cache, heads, tokens, form);
           }});
    }
  }
  return list;
}

template <>
std::vector<Case<MatmulOp>> large_cases() {
  struct Size {
    int64_t tokens, n, k;
  };
  std::vector<Case<MatmulOp>> list;
  for (const auto& [x, weight] : {std::pair{kF8DynamicToken, kF8Channel}, std::pair{kF8StaticTensor, kF8Tensor},
                                  std::pair{kF8DynamicGroup, kF8Block}, std::pair{kI8DynamicToken, kI8Channel},
                                  std::pair{plain_format(DType::kBF16), plain_format(DType::kBF16)}}) {
    for (const Size& size :
         {Size{1, 512, 4096}, Size{16, 1536, 576}, Size{64, 384, 2048}, Size{100, 576, 1536}, Size{300, 640, 1024}}) {
      list.push_back(
          {fmt::format("large, {} x {}, [{}, {}, {}]", x.to_string(), weight.to_string(), size.tokens, size.n, size.k),
           [=, x = x, weight = weight](CaseMemory& m) {
             return make_matmul(m, {.x = x, .weight = weight, .out = DType::kBF16}, size.tokens, size.n, size.k);
           }});
    }
  }
  return list;
}

namespace {

// Latent attention in DeepSeek's shape: splits and whole units, prompts beside decode, many sequences.
void add_latent_cases(std::vector<Case<PagedAttentionOp>>& list) {
  using Sequences = std::vector<AttentionShape::Sequence>;
  Sequences many;
  for (int64_t s = 0; s < 150; ++s) many.push_back({1, 1 + s * s * 53 % 257});
  const std::vector<std::tuple<std::string, int64_t, Sequences>> batches = {
      {"ragged", 16, {{1, 1000}, {1, 77}, {40, 200}, {1, 1}, {3, 515}, {9, 64}}},
      {"128 heads", 128, {{1, 300}, {1, 70}, {5, 140}, {1, 1}}},
      {"a long one", 16, {{1, 9000}}},
      {"a prompt", 16, {{300, 300}}},
      {"of a rank", 5, {{1, 130}, {20, 90}}},
      {"150 sequences", 16, many}};
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [name, heads, sequences] : batches) {
      list.push_back({fmt::format("latent, {}, cache {}", name, dtype_name(cache)),
                      [=, heads = heads, sequences = sequences](CaseMemory& m) {
                        const AttentionShape shape{.sequences = sequences,
                                                   .num_heads = heads,
                                                   .head_dim = 576,
                                                   .block_size = m.random().pick<int64_t>({16, 32, 64}),
                                                   .value_dim = 512};
                        const DType out = m.random().coin() ? DType::kBF16 : DType::kF32;
                        return make_attention(m, shape, {.q = DType::kBF16, .cache = cache, .out = out});
                      }});
    }
  }
}

}  // namespace

template <>
std::vector<Case<PagedAttentionOp>> large_cases() {
  std::vector<Case<PagedAttentionOp>> list;
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    for (const Heads& heads : {Heads{32, 8, 128}, Heads{9, 3, 64}, Heads{8, 4, 256}, Heads{4, 4, 96}}) {
      for (const QuantFormat& quantized : {QuantFormat{}, kF8DynamicToken, kF8DynamicGroup}) {
        list.push_back({fmt::format("large, cache {}, {} heads of {}, written {}", dtype_name(cache), heads.num_heads,
                                    heads.head_dim, quantized.quantized() ? quantized.to_string() : "plain"),
                        [=](CaseMemory& m) {
                          const AttentionShape shape{.sequences = {{1, 1000}, {1, 77}, {40, 200}, {1, 1}, {3, 515}},
                                                     .num_heads = heads.num_heads,
                                                     .num_kv_heads = heads.num_kv_heads,
                                                     .head_dim = heads.head_dim,
                                                     .block_size = m.random().pick<int64_t>({16, 32, 64}),
                                                     .sliding_window = m.random().pick<int64_t>({0, 0, 128})};
                          return make_attention(
                              m, shape,
                              {.q = DType::kBF16, .cache = cache, .out = DType::kBF16, .quantized = quantized});
                        }});
      }
    }
  }
  add_latent_cases(list);
  return list;
}

template <>
std::vector<Case<RopeAttentionOp>> large_cases() {
  using Sequences = std::vector<AttentionShape::Sequence>;
  struct Batch {
    std::string name;
    Heads heads;
    Sequences sequences;
  };
  const Sequences ragged = {{1, 1100}, {1, 256}, {1, 4099}, {1, 1}, {1, 77}, {1, 513}};
  Sequences many;
  for (int64_t s = 0; s < 8; ++s) many.push_back({1, 1 + s * s * 53 % 397});
  const std::vector<Batch> batches = {{"32 heads of 128", {32, 8, 128}, ragged},
                                      {"64 heads of 128", {64, 8, 128}, {{1, 300}, {1, 1025}}},
                                      {"16 KV heads of 128", {16, 16, 128}, ragged},
                                      {"16 heads of 256", {16, 4, 256}, ragged},
                                      {"up to 20000", {4, 1, 128}, {{1, 20000}, {1, 3}, {1, 9000}, {1, 130}}},
                                      {"8 sequences", {4, 2, 64}, many}};
  std::vector<Case<RopeAttentionOp>> list;
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [name, heads, sequences] : batches) {
      list.push_back(
          {fmt::format("large, {}, cache {}", name, dtype_name(cache)),
           [=, heads = heads, sequences = sequences](CaseMemory& m) {
             const AttentionShape shape{.sequences = sequences,
                                        .num_heads = heads.num_heads,
                                        .num_kv_heads = heads.num_kv_heads,
                                        .head_dim = heads.head_dim,
                                        .block_size = m.random().pick<int64_t>({16, 32, 64}),
                                        .sliding_window = m.random().pick<int64_t>({0, 0, 0, 700})};
             const QuantFormat quantized = m.random().pick({QuantFormat{}, kF8DynamicToken, kF8StaticTensor});
             const RopeForm form = m.random().pick({RopeForm::kQueryAndKeyNorm, RopeForm::kInPlace});
             return make_rope_attention(
                 m, shape, {.q = DType::kBF16, .cache = cache, .out = DType::kBF16, .quantized = quantized}, form);
           }});
    }
  }
  return list;
}

}  // namespace octet::ops_test
