// Cases of the ops that touch the paged cache.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

Heads draw_heads(Random& random) {
  return random.pick<Heads>(
      {{1, 1, 16}, {4, 2, 64}, {9, 3, 64}, {8, 1, 32}, {6, 2, 24}, {2, 2, 128}, {4, 4, 80}, {12, 2, 8}});
}

std::vector<int32_t> shuffled(Random& random, int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = count - 1; i > 0; --i)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(random.between(0, i))]);
  return order;
}

}  // namespace

PagedAttentionOp make_attention(CaseMemory& m, const AttentionShape& shape, const AttentionFormats& formats) {
  const int64_t d = shape.head_dim;
  std::vector<int32_t> query_start = {0};
  std::vector<int32_t> seq_lens;
  int64_t num_blocks = 1;  // block 0 belongs to nobody
  int64_t width = 2;
  for (const auto& [num_queries, num_keys] : shape.sequences) {
    query_start.push_back(static_cast<int32_t>(query_start.back() + num_queries));
    seq_lens.push_back(static_cast<int32_t>(num_keys));
    const int64_t blocks = (num_keys + shape.block_size - 1) / shape.block_size;
    num_blocks += blocks;
    width = std::max(width, blocks + 1);
  }
  const auto num_sequences = static_cast<int64_t>(shape.sequences.size());
  const std::vector<int32_t> order = shuffled(m.random(), num_blocks);
  std::vector<int32_t> table(static_cast<size_t>(num_sequences * width), 1 << 30);
  std::vector<bool> used(static_cast<size_t>(num_blocks * shape.block_size), false);
  size_t next = 0;
  for (int64_t s = 0; s < num_sequences; ++s) {
    for (int64_t p = 0; p < seq_lens[static_cast<size_t>(s)]; ++p) {
      int32_t& entry = table[static_cast<size_t>(s * width + p / shape.block_size)];
      if (p % shape.block_size == 0) entry = order[next++];
      used[static_cast<size_t>(entry * shape.block_size + p % shape.block_size)] = true;
    }
  }
  const Shape cache_shape{num_blocks, shape.num_kv_heads, shape.block_size, d};
  const auto make_cache = [&] {
    int64_t i = 0;
    return m.input(formats.cache, cache_shape, [&](Random& random) {
      const int64_t block = i / (shape.num_kv_heads * shape.block_size * d);
      const int64_t offset = i / d % shape.block_size;
      ++i;
      return used[static_cast<size_t>(block * shape.block_size + offset)] ? random.normal()
                                                                          : std::numeric_limits<float>::quiet_NaN();
    });
  };
  const int64_t tokens = query_start.back();
  const int64_t width_of_q = shape.num_heads * d;
  const Bound f32{.absolute = 2e-6, .relative = 4e-6};
  PagedAttentionOp op;
  op.out = m.output("out", formats.out, Shape{tokens, width_of_q}, rounded_bound(formats.out, f32));
  if (formats.quantized.quantized())
    op.quantized = m.quant_output("quantized", formats.quantized, tokens, width_of_q, f32, 0.01);
  op.q = m.input(formats.q, Shape{tokens, width_of_q}, normal_values, Layout::kStrided);
  op.k_cache = make_cache();
  op.v_cache = make_cache();
  op.query_start = m.integers(Shape{num_sequences + 1}, query_start);
  op.seq_lens = m.integers(Shape{num_sequences}, seq_lens);
  op.block_table = m.integers(Shape{num_sequences, width}, table);
  op.softmax_scale = 1.0f / std::sqrt(static_cast<float>(d));
  op.k_scale = m.random().pick({1.0f, 0.5f, 1.3f});
  op.v_scale = m.random().pick({1.0f, 0.7f});
  op.sliding_window = shape.sliding_window;
  return op;
}

template <>
std::vector<Case<PagedAttentionOp>> cases() {
  std::vector<Case<PagedAttentionOp>> list;
  const QuantFormat plain;
  const std::vector<std::pair<std::string, std::vector<AttentionShape::Sequence>>> batches = {
      {"decode", {{1, 1}, {1, 17}, {1, 70}}},
      {"prefill", {{37, 37}}},
      {"mixed", {{1, 40}, {5, 33}, {16, 16}, {1, 16}, {3, 3}}},
      {"long", {{1, 300}, {2, 150}}}};
  for (const DType q : {DType::kF32, DType::kBF16}) {
    for (const DType cache : kCaches) {
      for (const auto& [name, sequences] : batches) {
        for (const QuantFormat& quantized : {plain, kF8DynamicToken, kF8StaticTensor}) {
          list.push_back(
              {fmt::format("{} of {}, cache {}, written {}", name, dtype_name(q), dtype_name(cache),
                           quantized.quantized() ? quantized.to_string() : "plain"),
               [=, sequences = sequences](CaseMemory& m) {
                 const Heads heads = draw_heads(m.random());
                 const AttentionShape shape{.sequences = sequences,
                                            .num_heads = heads.num_heads,
                                            .num_kv_heads = heads.num_kv_heads,
                                            .head_dim = heads.head_dim,
                                            .block_size = m.random().pick<int64_t>({16, 32}),
                                            .sliding_window = m.random().pick<int64_t>({0, 0, 1, 5, 20, 64})};
                 const DType out = m.random().coin() ? q : DType::kF32;
                 return make_attention(m, shape, {.q = q, .cache = cache, .out = out, .quantized = quantized});
               }});
        }
      }
    }
  }
  return list;
}

RopeKvOp make_rope_kv(CaseMemory& m, DType qkv, DType cache, const Heads& heads, int64_t tokens, RopeForm form) {
  const auto [hq, hkv, d] = heads;
  const int64_t block_size = m.random().pick<int64_t>({16, 32});
  const int64_t num_blocks = std::max<int64_t>(3, 2 * tokens / block_size);
  const int64_t half = form == RopeForm::kPartialRotation ? d / 4 : d / 2;
  std::vector<int32_t> slots = shuffled(m.random(), num_blocks * block_size);
  slots.resize(static_cast<size_t>(tokens));
  if (tokens > 1) slots[1] = -1;
  const Bound f32{.absolute = 2e-6, .relative = 2e-6};
  RopeKvOp op;
  op.k_scale = m.random().pick({1.0f, 0.5f, 0.013f});
  op.v_scale = m.random().pick({1.0f, 0.7f});
  const auto make_cache = [&](const char* name, float scale) {
    Bound bound = rounded_bound(cache, {.absolute = f32.absolute / scale, .relative = f32.relative});
    bound.share_of_neighbours = 0.01;
    return m.in_out(name, cache, Shape{num_blocks, hkv, block_size, d}, bound);
  };
  op.k_cache = make_cache("k_cache", op.k_scale);
  op.v_cache = make_cache("v_cache", op.v_scale);
  const Shape qkv_shape{tokens, (hq + 2 * hkv) * d};
  if (form == RopeForm::kInPlace) {
    const Tensor both = m.in_out("qkv", qkv, qkv_shape, rounded_bound(qkv, f32));
    op.qkv = both;
    op.q_out = both.columns(0, hq * d);
  } else {
    op.qkv = m.input(qkv, qkv_shape, normal_values, Layout::kStrided);
    op.q_out = m.output("q_out", qkv, Shape{tokens, hq * d}, rounded_bound(qkv, f32));
  }
  const Fill from_minus_1_to_1 = [](Random& r) { return static_cast<float>(2 * r.uniform() - 1); };
  op.cos = m.input(DType::kF32, Shape{tokens, half}, from_minus_1_to_1);
  op.sin = m.input(DType::kF32, Shape{tokens, half}, from_minus_1_to_1);
  op.slot_mapping = m.integers(Shape{tokens}, slots);
  if (form == RopeForm::kQueryAndKeyNorm) {
    op.q_norm = m.weight(DType::kF32, Shape{d});
    op.k_norm = m.weight(DType::kF32, Shape{d});
  }
  return op;
}

template <>
std::vector<Case<RopeKvOp>> cases() {
  const std::vector<std::pair<std::string, RopeForm>> forms = {{"plain", RopeForm::kPlain},
                                                               {"partial rotation", RopeForm::kPartialRotation},
                                                               {"query and key norm", RopeForm::kQueryAndKeyNorm},
                                                               {"in place", RopeForm::kInPlace}};
  std::vector<Case<RopeKvOp>> list;
  for (const DType qkv : kActivations) {
    for (const DType cache : kCaches) {
      for (const auto& [name, form] : forms) {
        list.push_back(
            {fmt::format("{} to {}, {}", dtype_name(qkv), dtype_name(cache), name), [=, form = form](CaseMemory& m) {
               const Heads heads = draw_heads(m.random());
               return make_rope_kv(m, qkv, cache, heads, m.random().pick<int64_t>({1, 3, 8, 21}), form);
             }});
      }
    }
  }
  return list;
}

}  // namespace octet::ops_test
