// The reference kernels against PyTorch in F64: tests/golden/ops/ops.json, made by scripts/record_ops.py. What is left
// is one rounding to F32 per result, so the bounds are a few units of 2^-24.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/json.h"
#include "octet/kernels/backends.h"

namespace octet {
namespace {

const Json& golden() {
  static const Json json = read_json_file(OCTET_SOURCE_DIR "/tests/golden/ops/ops.json");
  return json;
}

// An array with its memory, read from the golden file or made for an output.
template <class T>
class Array {
 public:
  Array(const Json& numbers, Shape shape) : values_(numbers.get<std::vector<T>>()), shape_(shape) {
    OCTET_CHECK(static_cast<int64_t>(values_.size()) == shape.num_elements());
  }
  explicit Array(Shape shape) : values_(static_cast<size_t>(shape.num_elements())), shape_(shape) {}
  Tensor as(DType dtype) { return Tensor(reinterpret_cast<std::byte*>(values_.data()), dtype, shape_); }
  Tensor f32() { return as(DType::kF32); }
  std::vector<T>& values() { return values_; }

 private:
  std::vector<T> values_;
  Shape shape_;
};
using Floats = Array<float>;
using Ints = Array<int32_t>;
using Codes = Array<uint8_t>;

template <class Op>
void run_reference(const Op& op) {
  Backend(kernel_table(Device{}, KernelSelection::kReferenceOnly), Launch{}, DType::kF32)(op);
}

void expect_close(const Json& expected, const float* found, double absolute = 1e-7) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto want = expected[i].get<double>();
    ASSERT_NEAR(want, found[i], absolute + std::fabs(want) * 1.2e-7) << i;
  }
}

TEST(SpecificationTest, RmsNorm) {
  const Json& g = golden()["rms_norm"];
  const Shape shape{3, 37};
  Floats x(g["x"], shape), residual(g["residual"], shape), weight(g["weight"], Shape{37}), out(shape);
  run_reference(RmsNormOp{.out = QuantTensor(out.f32()),
                          .x = x.f32(),
                          .residual = residual.f32(),
                          .weight = weight.f32(),
                          .epsilon = 1e-5f});
  expect_close(g["out"], out.values().data());
  expect_close(g["residual_out"], residual.values().data(), 0.0);
}

TEST(SpecificationTest, SiluAndMul) {
  const Json& g = golden()["silu_and_mul"];
  Floats x(g["x"], Shape{3, 38}), out(Shape{3, 19});
  run_reference(SiluAndMulOp{.out = QuantTensor(out.f32()), .x = x.f32()});
  expect_close(g["out"], out.values().data());
}

TEST(SpecificationTest, Quantize) {
  const Json& g = golden()["quantize"];
  const Shape shape{5, 33};
  Floats x(g["x"], shape), scale(Shape{5}), static_scale(Shape{1});
  Codes out(shape);
  run_reference(QuantizeOp{.out = QuantTensor(out.as(DType::kF8E4M3), scale.f32(), kF8DynamicToken), .x = x.f32()});
  EXPECT_EQ(scale.values(), g["scale"].get<std::vector<float>>());
  EXPECT_EQ(out.values(), g["out"].get<std::vector<uint8_t>>());
  static_scale.values()[0] = g["static_scale"].get<float>();
  run_reference(
      QuantizeOp{.out = QuantTensor(out.as(DType::kF8E4M3), static_scale.f32(), kF8StaticTensor), .x = x.f32()});
  EXPECT_EQ(out.values(), g["static_out"].get<std::vector<uint8_t>>());
}

TEST(SpecificationTest, Matmul) {
  const Json& g = golden()["matmul"];
  const Shape x_shape{4, 41}, weight_shape{9, 41}, out_shape{4, 9};
  Floats x(g["x"], x_shape), weight(g["weight"], weight_shape), bias(g["bias"], Shape{9}), out(out_shape);
  run_reference(MatmulOp{.out = out.f32(),
                         .x = ConstQuantTensor(ConstTensor(x.f32())),
                         .weight = ConstQuantTensor(ConstTensor(weight.f32())),
                         .bias = bias.f32()});
  expect_close(g["out"], out.values().data());
  Codes q_x(g["q_x"], x_shape), q_weight(g["q_weight"], weight_shape);
  Floats scale_x(g["scale_x"], Shape{4}), scale_weight(g["scale_weight"], Shape{9});
  run_reference(MatmulOp{.out = out.f32(),
                         .x = QuantTensor(q_x.as(DType::kF8E4M3), scale_x.f32(), kF8DynamicToken),
                         .weight = QuantTensor(q_weight.as(DType::kF8E4M3), scale_weight.f32(), kF8Channel),
                         .bias = {}});
  expect_close(g["q_out"], out.values().data());
}

TEST(SpecificationTest, RopeTableAndRopeKv) {
  const Json& g = golden()["rope"];
  constexpr int64_t kTokens = 4, kHeads = 4, kKvHeads = 2, kDim = 12;
  Ints positions(g["positions"], Shape{kTokens}), slots(Shape{kTokens});
  Floats inv_freq(g["inv_freq"], Shape{4}), cos(Shape{kTokens, 4}), sin(Shape{kTokens, 4});
  run_reference(RopeTableOp{
      .cos = cos.f32(), .sin = sin.f32(), .positions = positions.as(DType::kI32), .inv_freq = inv_freq.f32()});
  expect_close(g["cos"], cos.values().data(), 0.0);
  expect_close(g["sin"], sin.values().data(), 0.0);

  slots.values() = {2, 0, 5, 3};  // blocks of 2 slots
  const Shape cache_shape{3, kKvHeads, 2, kDim};
  Floats qkv(g["qkv"], Shape{kTokens, (kHeads + 2 * kKvHeads) * kDim}), q_out(Shape{kTokens, kHeads * kDim});
  Floats k_cache(cache_shape), v_cache(cache_shape), q_norm(g["q_norm"], Shape{kDim}), k_norm(g["k_norm"], Shape{kDim});
  run_reference(RopeKvOp{.q_out = q_out.f32(),
                         .k_cache = k_cache.f32(),
                         .v_cache = v_cache.f32(),
                         .qkv = qkv.f32(),
                         .cos = cos.f32(),
                         .sin = sin.f32(),
                         .slot_mapping = slots.as(DType::kI32),
                         .q_norm = q_norm.f32(),
                         .k_norm = k_norm.f32(),
                         .norm_epsilon = 1e-6f,
                         .k_scale = g["k_scale"].get<float>(),
                         .v_scale = g["v_scale"].get<float>()});
  expect_close(g["q_out"], q_out.values().data(), 3e-7);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t h = 0; h < kKvHeads; ++h) {
      const auto slot = static_cast<size_t>(slots.values()[t]);
      for (size_t i = 0; i < kDim; ++i) {
        const size_t at = ((slot / 2 * kKvHeads + h) * 2 + slot % 2) * kDim + i;
        const size_t from = (t * kKvHeads + h) * kDim + i;
        const auto k = g["k_cache"][from].get<double>();
        ASSERT_NEAR(k, k_cache.values()[at], 3e-7 + 2e-7 * std::fabs(k));
        ASSERT_EQ(g["v_cache"][from].get<float>(), v_cache.values()[at]);
      }
    }
  }
}

void expect_attention(const Json& g) {
  const auto shape = g["shape"].get<std::vector<int64_t>>();
  const int64_t num_queries = shape[0], num_keys = shape[1], heads = shape[2], kv_heads = shape[3], d = shape[4];
  constexpr int64_t kBlockSize = 4;
  const int64_t num_blocks = (num_keys + kBlockSize - 1) / kBlockSize;
  Floats q(g["q"], Shape{num_queries, heads * d}), out(Shape{num_queries, heads * d});
  Floats k_cache(Shape{num_blocks, kv_heads, kBlockSize, d}), v_cache(Shape{num_blocks, kv_heads, kBlockSize, d});
  Ints table(Shape{1, num_blocks}), query_start(Shape{2}), seq_lens(Shape{1});
  for (int64_t b = 0; b < num_blocks; ++b)
    table.values()[static_cast<size_t>(b)] = static_cast<int32_t>(num_blocks - 1 - b);
  for (int64_t p = 0; p < num_keys; ++p) {
    for (int64_t i = 0; i < kv_heads * d; ++i) {
      const int64_t block = num_blocks - 1 - p / kBlockSize;
      const auto to = static_cast<size_t>(((block * kv_heads + i / d) * kBlockSize + p % kBlockSize) * d + i % d);
      const auto from = static_cast<size_t>(p * kv_heads * d + i);
      k_cache.values()[to] = g["k"][from].get<float>() / 0.5f;  // a power of two: exact
      v_cache.values()[to] = g["v"][from].get<float>() / 2.0f;
    }
  }
  query_start.values() = {0, static_cast<int32_t>(num_queries)};
  seq_lens.values() = {static_cast<int32_t>(num_keys)};
  PagedAttentionOp op;
  op.out = out.f32();
  op.q = q.f32();
  op.k_cache = k_cache.f32();
  op.v_cache = v_cache.f32();
  op.query_start = query_start.as(DType::kI32);
  op.seq_lens = seq_lens.as(DType::kI32);
  op.block_table = table.as(DType::kI32);
  op.softmax_scale = g["scale"].get<float>();
  op.k_scale = 0.5f;
  op.v_scale = 2.0f;
  op.sliding_window = g["window"].get<int64_t>();
  run_reference(op);
  expect_close(g["out"], out.values().data());
}

TEST(SpecificationTest, PagedAttention) {
  for (const Json& g : golden()["paged_attention"]) expect_attention(g);
}

// Two heads, one query that sees one key: the answer is its value, times the head's own scale.
TEST(SpecificationTest, ScalesOfHeads) {
  Floats qkv(Shape{1, 12}), q_out(Shape{1, 4}), k_cache(Shape{1, 2, 1, 2}), v_cache(Shape{1, 2, 1, 2});
  Floats k_scale(Shape{2}), v_scale(Shape{2}), cos(Shape{1, 1}), sin(Shape{1, 1}), out(Shape{1, 4});
  Ints slots(Shape{1}), query_start(Shape{2}), seq_lens(Shape{1}), table(Shape{1, 1});
  qkv.values() = {1, 1, 1, 1, 6, 2, 20, 5, 8, 4, 9, 3};
  cos.values() = {1};
  k_scale.values() = {2, 5};
  v_scale.values() = {4, 3};
  run_reference(RopeKvOp{.q_out = q_out.f32(),
                         .k_cache = k_cache.f32(),
                         .v_cache = v_cache.f32(),
                         .qkv = qkv.f32(),
                         .cos = cos.f32(),
                         .sin = sin.f32(),
                         .slot_mapping = slots.as(DType::kI32),
                         .k_scale = 100,
                         .v_scale = 100,
                         .k_head_scale = k_scale.f32(),
                         .v_head_scale = v_scale.f32()});
  EXPECT_EQ(k_cache.values(), (std::vector<float>{3, 1, 4, 1}));
  EXPECT_EQ(v_cache.values(), (std::vector<float>{2, 1, 3, 1}));
  query_start.values() = {0, 1};
  seq_lens.values() = {1};
  run_reference(PagedAttentionOp{.out = out.f32(),
                                 .quantized = {},
                                 .q = q_out.f32(),
                                 .k_cache = k_cache.f32(),
                                 .v_cache = v_cache.f32(),
                                 .query_start = query_start.as(DType::kI32),
                                 .seq_lens = seq_lens.as(DType::kI32),
                                 .block_table = table.as(DType::kI32),
                                 .k_head_scale = k_scale.f32(),
                                 .v_head_scale = v_scale.f32()});
  EXPECT_EQ(out.values(), (std::vector<float>{8, 4, 9, 3}));
}

TEST(SpecificationTest, EmbeddingAndGatherRows) {
  Floats table(Shape{3, 2}), out(Shape{4, 2});
  table.values() = {1, 2, 3, 4, 5, 6};
  Ints ids(Shape{4});
  ids.values() = {12, 10, 13, 9};
  run_reference(EmbeddingOp{.out = out.f32(), .table = table.f32(), .token_ids = ids.as(DType::kI32), .first_id = 10});
  EXPECT_EQ(out.values(), (std::vector<float>{5, 6, 1, 2, 0, 0, 0, 0}));
  Ints rows(Shape{4});
  rows.values() = {2, 2, 0, 1};
  run_reference(GatherRowsOp{.out = out.f32(), .x = table.f32(), .rows = rows.as(DType::kI32)});
  EXPECT_EQ(out.values(), (std::vector<float>{5, 6, 5, 6, 1, 2, 3, 4}));
}

TEST(SpecificationTest, MoveInts) {
  Ints to(Shape{4}), table(Shape{5}), from(Shape{3}), places(Shape{2}), sources(Shape{2});
  table.values() = {0, 0, 0, 0, 0};
  to.values() = {1, 1, 1, 1};
  from.values() = {7, 8, 9};
  places.values() = {3, 1};
  sources.values() = {2, 0};
  const Tensor t = to.as(DType::kI32), f = from.as(DType::kI32);
  MoveIntsOp op;
  op.moves[0] = {.to = t, .from = f, .to_index = {}, .from_index = {}};
  op.moves[1] = {.to = table.as(DType::kI32),
                 .from = f,
                 .to_index = places.as(DType::kI32),
                 .from_index = sources.as(DType::kI32)};
  op.moves[2] = {.to = t, .from = table.as(DType::kI32), .to_index = {}, .from_index = places.as(DType::kI32)};
  run_reference(op);
  EXPECT_EQ(table.values(), (std::vector<int32_t>{0, 7, 0, 9, 0}));
  EXPECT_EQ(to.values(), (std::vector<int32_t>{9, 7, 9, 1}));
}

}  // namespace
}  // namespace octet
