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

float from_minus_1_to_1(Random& random) { return static_cast<float>(2 * random.uniform() - 1); }
float from_half_to_one_and_a_half(Random& random) { return static_cast<float>(0.5 + random.uniform()); }

std::vector<int32_t> shuffled(Random& random, int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = count - 1; i > 0; --i)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(random.between(0, i))]);
  return order;
}

// Which blocks and slots of a cache a batch has.
struct PagedBatch {
  std::vector<int32_t> query_start = {0}, seq_lens, table;
  std::vector<bool> used;   // per slot
  std::vector<bool> fresh;  // per slot: of a token of this step
  int64_t num_blocks = 1;   // block 0 belongs to nobody
  int64_t width = 2;        // of the table

  PagedBatch(const AttentionShape& shape, Random& random) {
    for (const auto& [num_queries, num_keys] : shape.sequences) {
      query_start.push_back(static_cast<int32_t>(query_start.back() + num_queries));
      seq_lens.push_back(static_cast<int32_t>(num_keys));
      const int64_t blocks = (num_keys + shape.block_size - 1) / shape.block_size;
      num_blocks += blocks;
      width = std::max(width, blocks + 1);
    }
    const std::vector<int32_t> order = shuffled(random, num_blocks);
    table.assign(shape.sequences.size() * static_cast<size_t>(width), 1 << 30);
    used.assign(static_cast<size_t>(num_blocks * shape.block_size), false);
    fresh = used;
    size_t next = 0;
    for (int64_t s = 0; s < num_sequences(); ++s) {
      for (int64_t p = 0; p < seq_lens[static_cast<size_t>(s)]; ++p) {
        if (p % shape.block_size == 0) table[static_cast<size_t>(s * width + p / shape.block_size)] = order[next++];
        used[static_cast<size_t>(slot(shape, s, p))] = true;
        fresh[static_cast<size_t>(slot(shape, s, p))] = p >= seq_lens[static_cast<size_t>(s)] - num_queries(s);
      }
    }
  }
  int64_t num_sequences() const { return static_cast<int64_t>(seq_lens.size()); }
  int64_t num_tokens() const { return query_start.back(); }
  int64_t num_queries(int64_t s) const {
    return query_start[static_cast<size_t>(s) + 1] - query_start[static_cast<size_t>(s)];
  }
  int32_t slot(const AttentionShape& shape, int64_t s, int64_t p) const {
    const auto block_size = static_cast<int32_t>(shape.block_size);
    return table[static_cast<size_t>(s * width + p / block_size)] * block_size + static_cast<int32_t>(p % block_size);
  }
  Shape cache_shape(const AttentionShape& shape) const {
    return {num_blocks, shape.num_kv_heads, shape.block_size, shape.head_dim};
  }
  // The slot of an element of a cache.
  static size_t slot_of(const AttentionShape& shape, int64_t element) {
    const int64_t block = element / (shape.num_kv_heads * shape.block_size * shape.head_dim);
    return static_cast<size_t>(block * shape.block_size + element / shape.head_dim % shape.block_size);
  }
  // Values for a cache, NaN in unused slots; for one pass over it.
  Fill cache_values(const AttentionShape& shape) const {
    return [this, &shape, i = int64_t{0}](Random& random) mutable {
      return used[slot_of(shape, i++)] ? random.normal() : std::numeric_limits<float>::quiet_NaN();
    };
  }
};

// All of the op but q and the cache.
PagedAttentionOp make_rest_of_attention(CaseMemory& m, const AttentionShape& shape, const AttentionFormats& formats,
                                        const PagedBatch& batch) {
  const int64_t width = shape.num_heads * (shape.value_dim > 0 ? shape.value_dim : shape.head_dim);
  const Bound f32{.absolute = 2e-6, .relative = 4e-6};
  PagedAttentionOp op;
  op.out = m.output("out", formats.out, Shape{batch.num_tokens(), width}, rounded_bound(formats.out, f32));
  if (formats.quantized.quantized())
    op.quantized = m.quant_output("quantized", formats.quantized, batch.num_tokens(), width, f32, 0.01);
  op.query_start = m.integers(Shape{batch.num_sequences() + 1}, batch.query_start);
  op.seq_lens = m.integers(Shape{batch.num_sequences()}, batch.seq_lens);
  op.block_table = m.integers(Shape{batch.num_sequences(), batch.width}, batch.table);
  op.softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  op.k_scale = m.random().pick({1.0f, 0.5f, 1.3f});
  op.v_scale = m.random().pick({1.0f, 0.7f});
  if (formats.scales == AttentionFormats::Scales::kPerHead) {
    op.k_head_scale = m.input(DType::kF32, Shape{shape.num_kv_heads}, from_half_to_one_and_a_half);
    op.v_head_scale = m.input(DType::kF32, Shape{shape.num_kv_heads}, from_half_to_one_and_a_half);
  }
  op.sliding_window = shape.sliding_window;
  return op;
}

}  // namespace

PagedAttentionOp make_attention(CaseMemory& m, const AttentionShape& shape, const AttentionFormats& formats) {
  const PagedBatch batch(shape, m.random());
  PagedAttentionOp op = make_rest_of_attention(m, shape, formats, batch);
  op.q =
      m.input(formats.q, Shape{batch.num_tokens(), shape.num_heads * shape.head_dim}, normal_values, Layout::kStrided);
  op.k_cache = m.input(formats.cache, batch.cache_shape(shape), batch.cache_values(shape));
  op.v_cache = op.k_cache;
  if (shape.value_dim == 0) op.v_cache = m.input(formats.cache, batch.cache_shape(shape), batch.cache_values(shape));
  for (const ConstTensor& early : {op.query_start, op.seq_lens, op.block_table}) m.written_before_step(early);
  const std::vector<ConstTensor> caches =
      shape.value_dim > 0 ? std::vector{op.k_cache} : std::vector{op.k_cache, op.v_cache};
  for (const ConstTensor& cache : caches) {
    m.written_before_step(cache, [&](int64_t i) { return batch.fresh[PagedBatch::slot_of(shape, i)]; });
  }
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
        for (const QuantFormat& quantized : {plain, kF8DynamicToken, kF8StaticTensor, kF8DynamicGroup, kI8DynamicToken,
                                             kI8AsymmetricToken, kI8StaticTensor}) {
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
      list.push_back(
          {fmt::format("scale per head, {}, cache {}", dtype_name(q), dtype_name(cache)), [=](CaseMemory& m) {
             const Heads heads = draw_heads(m.random());
             const AttentionShape shape{.sequences = {{1, 40}, {5, 33}, {1, 300}},
                                        .num_heads = heads.num_heads,
                                        .num_kv_heads = heads.num_kv_heads,
                                        .head_dim = heads.head_dim};
             return make_attention(m, shape, {.q = q, .cache = cache, .scales = AttentionFormats::Scales::kPerHead});
           }});
      list.push_back(
          {fmt::format("values in keys, {}, cache {}", dtype_name(q), dtype_name(cache)), [=](CaseMemory& m) {
             AttentionShape shape{.sequences = {{1, 40}, {5, 33}, {16, 16}, {1, 300}}};
             const int64_t rotated = m.random().pick<int64_t>({4, 8, 16});
             shape.value_dim = m.random().pick<int64_t>({4, 24, 64, 100});
             shape.head_dim = shape.value_dim + rotated;
             shape.num_heads = m.random().pick<int64_t>({1, 4, 6, 8});
             return make_attention(m, shape, {.q = q, .cache = cache, .out = q});
           }});
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
  if (form == RopeForm::kScalePerHead) {
    op.k_head_scale = m.input(DType::kF32, Shape{hkv}, from_half_to_one_and_a_half);
    op.v_head_scale = m.input(DType::kF32, Shape{hkv}, from_half_to_one_and_a_half);
    op.k_scale = op.v_scale = 0.5f;  // at least
  }
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
                                                               {"in place", RopeForm::kInPlace},
                                                               {"scale per head", RopeForm::kScalePerHead}};
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

namespace {

// The bound of a cache that a kernel writes values of about 1 to.
Bound cache_bound(DType cache, float scale) {
  Bound bound = rounded_bound(cache, {.absolute = 2e-6 / static_cast<double>(scale), .relative = 2e-6});
  bound.share_of_neighbours = 0.01;
  bound.strict = true;
  return bound;
}

// Its sequences' tokens are the last of what attention sees; every fifth sequence, from the second on, writes nothing.
std::vector<int32_t> new_slots(const AttentionShape& shape, PagedBatch& batch) {
  std::vector<int32_t> slots;
  for (int64_t s = 0; s < batch.num_sequences(); ++s) {
    const auto [num_queries, num_keys] = shape.sequences[static_cast<size_t>(s)];
    for (int64_t p = num_keys - num_queries; p < num_keys; ++p) {
      slots.push_back(s % 5 == 1 ? -1 : batch.slot(shape, s, p));
      if (slots.back() >= 0) batch.used[static_cast<size_t>(slots.back())] = false;
    }
  }
  return slots;
}

}  // namespace

RopeAttentionOp make_rope_attention(CaseMemory& m, const AttentionShape& shape, const AttentionFormats& formats,
                                    RopeForm form) {
  PagedBatch batch(shape, m.random());
  RopeAttentionOp op;
  PagedAttentionOp& attention = op.attention;
  RopeKvOp& rope = op.rope;
  rope.slot_mapping = m.integers(Shape{batch.num_tokens()}, new_slots(shape, batch));
  attention = make_rest_of_attention(m, shape, formats, batch);
  rope.k_scale = attention.k_scale;
  rope.v_scale = attention.v_scale;
  rope.k_head_scale = attention.k_head_scale;
  rope.v_head_scale = attention.v_head_scale;
  rope.k_cache = m.in_out("k_cache", formats.cache, batch.cache_shape(shape), cache_bound(formats.cache, rope.k_scale),
                          batch.cache_values(shape));
  rope.v_cache = m.in_out("v_cache", formats.cache, batch.cache_shape(shape), cache_bound(formats.cache, rope.v_scale),
                          batch.cache_values(shape));
  const int64_t d = shape.head_dim, tokens = batch.num_tokens(), q_columns = shape.num_heads * d;
  const Shape qkv{tokens, q_columns + 2 * shape.num_kv_heads * d};
  if (form == RopeForm::kInPlace) {
    const Tensor both = m.scratch(formats.q, qkv);
    rope.qkv = both;
    rope.q_out = both.columns(0, q_columns);
  } else {
    rope.qkv = m.input(formats.q, qkv, normal_values, Layout::kStrided);
    rope.q_out =
        m.scratch(formats.q, Shape{tokens, q_columns}, [](Random&) { return std::numeric_limits<float>::quiet_NaN(); });
  }
  rope.cos = m.input(DType::kF32, Shape{tokens, d / 2}, from_minus_1_to_1);
  rope.sin = m.input(DType::kF32, Shape{tokens, d / 2}, from_minus_1_to_1);
  if (form == RopeForm::kQueryAndKeyNorm) {
    rope.q_norm = m.weight(DType::kF32, Shape{d});
    rope.k_norm = m.weight(DType::kF32, Shape{d});
  }
  attention.q = rope.q_out;
  attention.k_cache = rope.k_cache;
  attention.v_cache = rope.v_cache;
  for (const ConstTensor& early : {ConstTensor(rope.k_cache), ConstTensor(rope.v_cache), rope.slot_mapping,
                                   attention.query_start, attention.seq_lens, attention.block_table}) {
    m.written_before_step(early);
  }
  return op;
}

template <>
std::vector<Case<RopeAttentionOp>> cases() {
  const std::vector<std::pair<std::string, std::vector<AttentionShape::Sequence>>> batches = {
      {"decode", {{1, 1}, {1, 17}, {1, 64}, {1, 257}}},
      {"one", {{1, 129}}},
      {"splits", {{1, 600}, {1, 256}, {1, 1030}}},
      {"mixed", {{1, 40}, {5, 33}, {1, 16}}}};
  const QuantFormat plain;
  std::vector<Case<RopeAttentionOp>> list;
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [name, sequences] : batches) {
      for (const QuantFormat& quantized : {plain, kF8DynamicToken, kF8StaticTensor}) {
        list.push_back({fmt::format("{}, cache {}, written {}", name, dtype_name(cache),
                                    quantized.quantized() ? quantized.to_string() : "plain"),
                        [=, sequences = sequences](CaseMemory& m) {
                          const Heads heads = m.random().pick<Heads>({{4, 2, 64},
                                                                      {9, 3, 64},
                                                                      {8, 1, 64},
                                                                      {2, 2, 128},
                                                                      {8, 2, 128},
                                                                      {6, 1, 256},
                                                                      {16, 1, 64},
                                                                      {12, 12, 64},
                                                                      {16, 8, 128},
                                                                      {24, 2, 128}});
                          const AttentionShape shape{.sequences = sequences,
                                                     .num_heads = heads.num_heads,
                                                     .num_kv_heads = heads.num_kv_heads,
                                                     .head_dim = heads.head_dim,
                                                     .block_size = m.random().pick<int64_t>({16, 32}),
                                                     .sliding_window = m.random().pick<int64_t>({0, 0, 0, 1, 20, 300})};
                          const RopeForm form =
                              m.random().pick({RopeForm::kPlain, RopeForm::kQueryAndKeyNorm, RopeForm::kInPlace});
                          const DType out = m.random().coin() ? DType::kBF16 : DType::kF32;
                          return make_rope_attention(
                              m, shape, {.q = DType::kBF16, .cache = cache, .out = out, .quantized = quantized}, form);
                        }});
      }
    }
  }
  return list;
}

}  // namespace octet::ops_test
