// Cases of the ops of multi-head latent attention.
#include <cmath>
#include <numeric>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

struct HeadMatmulSize {
  int64_t tokens, heads, n, k;
  int64_t unit;  // of what lies between heads
};

HeadMatmulOp make_head_matmul(CaseMemory& m, DType activation, DType weight, const HeadMatmulSize& size) {
  Random& random = m.random();
  const auto [tokens, heads, n, k, unit] = size;
  HeadMatmulOp op{.out = {},
                  .out_step = n + random.between(0, 9) * unit,
                  .x = {},
                  .x_step = k + random.between(0, 9) * unit,
                  .weight = m.weight(weight, Shape{heads, n, k})};
  op.out_first = random.between(0, (op.out_step - n) / unit) * unit;
  op.x_first = random.between(0, (op.x_step - k) / unit) * unit;
  const double root = std::sqrt(static_cast<double>(k));
  const Bound bound =
      rounded_bound(activation, {.absolute = 1e-6 * root + 5e-8 * static_cast<double>(k), .relative = 1e-6});
  // Columns of out between the heads' stay as they are.
  op.out = m.in_out("out", activation, Shape{tokens, heads * op.out_step}, bound, normal_values, draw_layout(random));
  op.x = m.input(activation, Shape{tokens, heads * op.x_step}, normal_values, draw_layout(random));
  return op;
}

struct LatentSize {
  int64_t tokens, heads, latent, half, passed;
};

LatentKvOp make_latent_kv(CaseMemory& m, DType activation, DType cache, LatentKvOp::Pairs pairs,
                          const LatentSize& size) {
  Random& random = m.random();
  const auto [tokens, heads, latent, half, passed] = size;
  const int64_t cached = latent + 2 * half;
  constexpr int64_t kBlockSize = 4;
  const int64_t num_blocks = (tokens + kBlockSize - 1) / kBlockSize + 1;
  std::vector<int32_t> slots(static_cast<size_t>(num_blocks * kBlockSize));
  std::iota(slots.begin(), slots.end(), 0);
  for (size_t i = slots.size() - 1; i > 0; --i)
    std::swap(slots[i], slots[static_cast<size_t>(random.between(0, static_cast<int64_t>(i)))]);
  slots.resize(static_cast<size_t>(tokens));
  if (random.coin()) slots.back() = -1;
  const Bound bound = rounded_bound(activation, {.absolute = 1e-6, .relative = 2e-6});
  Bound stored = rounded_bound(cache, {.absolute = 1e-6, .relative = 2e-6});
  if (dtype_bytes(cache) == 1) stored = {.share_of_neighbours = 0.02};
  return {
      .q_out = m.in_out("q_out", activation, Shape{tokens, heads * cached}, bound, normal_values, draw_layout(random)),
      .cache = m.in_out("cache", cache, Shape{num_blocks, 1, kBlockSize, cached}, stored),
      .q = m.input(activation, Shape{tokens, heads * (passed + 2 * half)}, normal_values, draw_layout(random)),
      .kv = m.input(activation, Shape{tokens, cached}, normal_values, draw_layout(random)),
      .norm = m.weight(DType::kF32, Shape{latent}),
      .cos = m.input(DType::kF32, Shape{tokens, half}),
      .sin = m.input(DType::kF32, Shape{tokens, half}),
      .slot_mapping = m.integers(Shape{tokens}, slots),
      .pairs = pairs,
      .norm_epsilon = 1e-5f,
      .scale = random.pick({1.0f, 0.37f})};
}

}  // namespace

template <>
std::vector<Case<HeadMatmulOp>> cases() {
  std::vector<Case<HeadMatmulOp>> list;
  for (const DType activation : kActivations) {
    for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (int repeat = 0; repeat < 4; ++repeat) {
        list.push_back(
            {fmt::format("{} by {} {}", dtype_name(activation), dtype_name(weight), repeat), [=](CaseMemory& m) {
               Random& random = m.random();
               return make_head_matmul(m, activation, weight,
                                       {.tokens = random.pick<int64_t>({1, 1, 2, 5, 17}),
                                        .heads = random.pick<int64_t>({1, 2, 5}),
                                        .n = random.pick<int64_t>({1, 8, 31, 64}),
                                        .k = random.pick<int64_t>({1, 7, 16, 48, 96}),
                                        .unit = 1});
             }});
      }
    }
  }
  return list;
}

template <>
std::vector<Case<LatentKvOp>> cases() {
  std::vector<Case<LatentKvOp>> list;
  for (const DType activation : kActivations) {
    for (const DType cache : kCaches) {
      for (const LatentKvOp::Pairs pairs : {LatentKvOp::Pairs::kHalves, LatentKvOp::Pairs::kNeighbours}) {
        list.push_back({fmt::format("{} to {}, {}", dtype_name(activation), dtype_name(cache),
                                    pairs == LatentKvOp::Pairs::kHalves ? "halves" : "neighbours"),
                        [=](CaseMemory& m) {
                          Random& random = m.random();
                          return make_latent_kv(m, activation, cache, pairs,
                                                {.tokens = random.pick<int64_t>({1, 2, 5, 17}),
                                                 .heads = random.pick<int64_t>({1, 2, 6}),
                                                 .latent = random.pick<int64_t>({1, 24, 64, 100}),
                                                 .half = random.pick<int64_t>({1, 4, 9, 16}),
                                                 .passed = random.pick<int64_t>({0, 3, 16})});
                        }});
      }
    }
  }
  return list;
}

// DeepSeek's shapes.
template <>
std::vector<Case<HeadMatmulOp>> large_cases() {
  std::vector<Case<HeadMatmulOp>> list;
  for (const auto& [n, k] : {std::pair{512, 128}, std::pair{128, 512}, std::pair{64, 64}}) {
    for (const int64_t tokens : {1, 16, 17, 130}) {
      list.push_back({fmt::format("large, {} tokens to {} of {}", tokens, n, k), [=, n = n, k = k](CaseMemory& m) {
                        return make_head_matmul(m, DType::kBF16, DType::kBF16, {tokens, 3, n, k, 16});
                      }});
    }
  }
  return list;
}

template <>
std::vector<Case<LatentKvOp>> large_cases() {
  std::vector<Case<LatentKvOp>> list;
  for (const DType cache : kCaches) {
    for (const int64_t heads : {16, 128}) {
      list.push_back({fmt::format("large, {} heads, to {}", heads, dtype_name(cache)), [=](CaseMemory& m) {
                        return make_latent_kv(m, DType::kBF16, cache, LatentKvOp::Pairs::kNeighbours,
                                              {m.random().pick<int64_t>({1, 5, 40}), heads, 512, 32, 128});
                      }});
    }
  }
  return list;
}

}  // namespace octet::ops_test
