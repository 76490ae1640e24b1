// Linears that the checkpoint holds in 8 bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "octet/checkpoint/weights_for_test.h"

namespace octet {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kStatic = R"({"quant_method": "fp8", "activation_scheme": "static"})";
constexpr const char* kDynamic = R"({"quant_method": "fp8", "activation_scheme": "dynamic"})";

void add_fp8(TestCheckpoint& checkpoint, const std::string& module, Shape shape, const std::vector<float>& codes,
             float scale, Shape scale_shape, float input_scale) {
  checkpoint.add(module + ".weight", DType::kF8E4M3, shape, codes);
  checkpoint.add(module + ".weight_scale", DType::kF32, scale_shape, {scale});
  if (input_scale > 0) checkpoint.add(module + ".input_scale", DType::kF32, scale_shape, {input_scale});
}

TEST(StoredWeights, StoredFp8KeepsCodesAndScales) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  add_fp8(checkpoint, "a", Shape{2, 2}, {448, 1, -2, 3}, 0.5f, Shape{}, 0.25f);
  add_fp8(checkpoint, "b", Shape{1, 2}, {4, 5}, 0.125f, Shape{1}, 0.75f);
  checkpoint.write(folder);
  const LinearRequest request{.parts = {whole("a", 2), whole("b", 1)}, .k = 2};
  Loader loader(folder.path(), {.quantization_config = kStatic});
  const LoadedLinear linear = loader.root().linear(request);
  EXPECT_EQ(linear.weight.format, kF8Channel);
  EXPECT_THAT(floats(linear.weight.data), ElementsAre(448, 1, -2, 3, 4, 5));
  EXPECT_THAT(floats(linear.weight.scale), ElementsAre(0.5, 0.5, 0.125));
  EXPECT_EQ(linear.activation, kF8StaticTensor);
  EXPECT_THAT(floats(linear.input_scale), ElementsAre(0.75));  // one input, the larger range
  check_all_consumed(loader.source, [](std::string_view) { return false; });
  Loader dynamic(folder.path(), {.quantization_config = kDynamic});
  const LoadedLinear other = dynamic.root().linear(request);
  EXPECT_EQ(other.activation, kF8DynamicToken);
  EXPECT_TRUE(other.input_scale.empty());
  check_all_consumed(dynamic.source, [](std::string_view) { return false; });  // unused input scales are no left-overs
  Loader second_rank(folder.path(), {.quantization_config = kStatic, .rank = 1, .world_size = 2});
  const LoadedLinear row =
      second_rank.root().linear(LinearRequest{.parts = {whole("a", 2)}, .k = 2, .shard = Shard::kRow});
  EXPECT_EQ(row.weight.format, kF8Tensor);
  EXPECT_THAT(floats(row.weight.data), ElementsAre(1, 3));
}

TEST(StoredWeights, FormatsWithoutAFastKernelAreHeldAsRealNumbers) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  add_fp8(checkpoint, "a", Shape{2, 2}, {448, 1, -2, 3}, 0.5f, Shape{}, 0.25f);
  add_fp8(checkpoint, "b", Shape{1, 2}, {4, 5}, 0.125f, Shape{1}, 0.75f);
  checkpoint.write(folder);
  const LinearRequest fused{.parts = {whole("a", 2), whole("b", 1)}, .k = 2};
  Loader loader(folder.path(), {.quantization_config = kStatic, .plain = DType::kBF16});
  loader.source.runs_fast = [](const QuantFormat& weight, const QuantFormat& activation, int64_t n, int64_t k) {
    EXPECT_TRUE(n == 3 || n == 1);
    EXPECT_EQ(k, 2);
    EXPECT_EQ(weight.quantized(), activation.quantized());
    return weight.granularity != Granularity::kChannel;
  };
  const LoadedLinear linear = loader.root().linear(fused);
  EXPECT_EQ(linear.weight.format, plain_format(DType::kBF16));
  EXPECT_TRUE(linear.weight.scale.empty());
  EXPECT_FALSE(linear.activation.quantized());
  EXPECT_TRUE(linear.input_scale.empty());
  EXPECT_THAT(floats(linear.weight.data), ElementsAre(224, 0.5, -1, 1.5, 0.5, 0.625));
  EXPECT_EQ(loader.source.weight_bytes, 3 * 2 * 2);
  EXPECT_EQ(loader.source.scale_bytes, 0);
  EXPECT_EQ(loader.root().linear(LinearRequest{.parts = {whole("b", 1)}, .k = 2}).weight.format, kF8Tensor);
  check_all_consumed(loader.source, [](std::string_view) { return false; });
  const std::map<std::string, int64_t> expected = {
      {"f8_e4m3 per channel weights and f8_e4m3 per tensor activations", 2}};
  EXPECT_EQ(loader.source.dequantised, expected);
  testing::internal::CaptureStderr();
  warn_of_dequantised(loader.source);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("no fast kernel takes 2 linears with f8_e4m3 per channel weights and f8_e4m3 per tensor "
                        "activations: they are held in bf16"));
  // Without any fast kernel there is nothing to gain.
  Loader slow(folder.path(), {.quantization_config = kStatic});
  slow.source.runs_fast = [](const QuantFormat&, const QuantFormat&, int64_t, int64_t) { return false; };
  EXPECT_EQ(slow.root().linear(fused).weight.format, kF8Channel);
  EXPECT_TRUE(slow.source.dequantised.empty());
}

// What would be quantised while loading is then loaded as it is.
TEST(StoredWeights, NothingIsQuantisedForASlowKernel) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("a.weight", DType::kBF16, Shape{2, 2}, {1, 2, 3, 4.03125f});
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization = "fp8"});
  loader.source.runs_fast = [](const QuantFormat& weight, const QuantFormat&, int64_t, int64_t) {
    return !weight.quantized();
  };
  const LoadedLinear linear = loader.root().linear(LinearRequest{.parts = {whole("a", 2)}, .k = 2});
  EXPECT_THAT(floats(linear.weight.data), ElementsAre(1, 2, 3, 4.03125f));
  EXPECT_FALSE(linear.activation.quantized());
  EXPECT_EQ(loader.source.dequantised.size(), 1u);
}

TEST(StoredWeights, TheFileSaysWhatIsQuantised) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  add_fp8(checkpoint, "a", Shape{1, 2}, {448, 1}, 0.5f, Shape{}, 0.25f);
  checkpoint.add("b.weight", DType::kBF16, Shape{1, 2}, {1, 2});
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization_config = kStatic});
  const LoadedLinear plain = loader.root().linear(LinearRequest{.parts = {whole("b", 1)}, .k = 2});
  EXPECT_EQ(plain.weight.format, plain_format(DType::kF32));
  // Half of a fused linear in 8 bits is damage, unless quantization_config says so.
  const LinearRequest both{.parts = {whole("a", 1), whole("b", 1)}, .k = 2};
  EXPECT_THAT(error_text([&] { loader.root().linear(both); }), HasSubstr("a.weight is in 8 bits and b.weight is not"));
  Loader told(
      folder.path(),
      {.quantization_config = R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["b"]})"});
  const LoadedLinear mixed = told.root().linear(both);
  EXPECT_THAT(floats(mixed.weight.data), ElementsAre(224, 0.5, 1, 2));
  EXPECT_FALSE(mixed.activation.quantized());
  EXPECT_TRUE(mixed.input_scale.empty());
  check_all_consumed(told.source, [](std::string_view) { return false; });
  Loader unaware(folder.path());
  EXPECT_THAT(error_text([&] { unaware.root().linear(LinearRequest{.parts = {whole("a", 1)}, .k = 2}); }),
              HasSubstr("a.weight: dtype f8_e4m3, expected f32, bf16 or f16: quantization_config does not say"));
}

TEST(StoredWeights, BadScalesAreErrors) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  add_fp8(checkpoint, "a", Shape{1, 2}, {448, 1}, std::nanf(""), Shape{}, 0.25f);
  add_fp8(checkpoint, "b", Shape{1, 2}, {448, 1}, 1.0f, Shape{}, -1.0f + 1.5f);
  add_fp8(checkpoint, "c", Shape{1, 2}, {448, 1}, 1.0f, Shape{}, INFINITY);
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization_config = kStatic});
  const auto load = [&](const std::string& name) {
    return error_text([&] { loader.root().linear(LinearRequest{.parts = {whole(name, 1)}, .k = 2}); });
  };
  EXPECT_THAT(load("a"), HasSubstr("a.weight_scale: the scale is nan, expected a number above 0"));
  EXPECT_EQ(load("b"), "no error");
  EXPECT_THAT(load("c"), HasSubstr("c.input_scale: the scale is inf"));
}

constexpr const char* kBlocks =
    R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})";

// [n, k] of codes one, and scales that count their blocks from one.
void add_blocks(TestCheckpoint& checkpoint, const std::string& module, int64_t n, int64_t k, DType dtype) {
  checkpoint.add(module + ".weight", DType::kF8E4M3, Shape{n, k}, std::vector<float>(static_cast<size_t>(n * k), 1.0f));
  const Shape blocks = kF8Block.scale_shape(n, k);
  checkpoint.add(module + ".weight_scale_inv", dtype, blocks, ramp(static_cast<size_t>(blocks.num_elements()), 1, 1));
}

TEST(StoredWeights, StoredBlocksKeepTheirScales) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  add_blocks(checkpoint, "a", 128, 320, DType::kF32);
  add_blocks(checkpoint, "b", 130, 320, DType::kBF16);
  add_blocks(checkpoint, "c", 64, 320, DType::kF32);
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization_config = kBlocks});
  const LoadedLinear fits = loader.root().linear(LinearRequest{.parts = {whole("a", 128), whole("b", 130)}, .k = 320});
  EXPECT_EQ(fits.weight.format, kF8Block);
  EXPECT_EQ(fits.activation, kF8DynamicGroup);
  EXPECT_THAT(floats(fits.weight.scale), ElementsAre(1, 2, 3, 1, 2, 3, 4, 5, 6));
  // The second part begins within a block: every row has its blocks' scales.
  const LoadedLinear rows = loader.root().linear(LinearRequest{.parts = {whole("c", 64), whole("b", 130)}, .k = 320});
  EXPECT_EQ(rows.weight.format.to_string(), "f8_e4m3 per group of 128");
  EXPECT_THAT(floats(rows.weight.scale.rows(63, 2)), ElementsAre(1, 2, 3, 1, 2, 3));
  EXPECT_THAT(floats(rows.weight.scale.rows(191, 2)), ElementsAre(1, 2, 3, 4, 5, 6));
  check_all_consumed(loader.source, [](std::string_view) { return false; });
  // A rank whose 160 columns begin within a block.
  Loader second(folder.path(), {.quantization_config = kBlocks, .rank = 1, .world_size = 2});
  const LoadedLinear columns =
      second.root().linear(LinearRequest{.parts = {whole("a", 128)}, .k = 320, .shard = Shard::kRow});
  EXPECT_EQ(columns.weight.format.to_string(), "f8_e4m3 per group of 32");
  EXPECT_EQ(columns.activation.group_cols, 32);
  EXPECT_THAT(floats(columns.weight.scale.rows(5, 1)), ElementsAre(2, 2, 2, 3, 3));
  // Groups of 8 are too fine for any kernel: real numbers.
  Loader many(folder.path(), {.quantization_config = kBlocks, .rank = 16, .world_size = 40});
  const LoadedLinear fine =
      many.root().linear(LinearRequest{.parts = {whole("a", 128)}, .k = 320, .shard = Shard::kRow});
  EXPECT_EQ(fine.weight.format, plain_format(DType::kF32));
  EXPECT_FALSE(fine.activation.quantized());
  EXPECT_THAT(floats(fine.weight.data.rows(5, 1)), Each(2));
  EXPECT_THAT(many.source.dequantised.begin()->first, HasSubstr("per 128x128 block weights cut by ranks"));
  // Without a kernel, real numbers.
  Loader real(folder.path(), {.quantization_config = kBlocks});
  real.source.runs_fast = [](const QuantFormat& weight, const QuantFormat&, int64_t, int64_t) {
    return !weight.quantized();
  };
  const std::vector<float> values =
      floats(real.root().linear(LinearRequest{.parts = {whole("b", 130)}, .k = 320}).weight.data);
  EXPECT_EQ(values[127 * 320 + 127], 1.0f);
  EXPECT_EQ(values[127 * 320 + 319], 3.0f);
  EXPECT_EQ(values[128 * 320 + 128], 5.0f);
}

std::string int8_config(std::string_view input) {
  return fmt::format(R"({{"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {{"group_0":
      {{"targets": ["Linear"], "weights": {{"type": "int", "strategy": "channel"}}, "input_activations": {}}}}}}})",
                     input);
}

TEST(StoredWeights, StoredIntegersWithZeroPoints) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  for (const std::string name : {"a", "b"}) {
    checkpoint.add(name + ".weight", DType::kI8, Shape{1, 2}, {-128, 3});
    checkpoint.add(name + ".weight_scale", DType::kBF16, Shape{1, 1}, {0.5f});
    checkpoint.add(name + ".input_scale", DType::kBF16, Shape{1}, {name == "a" ? 0.5f : 1.0f});
    checkpoint.add(name + ".input_zero_point", DType::kI8, Shape{1}, {name == "a" ? 28.0f : -28.0f});
  }
  checkpoint.add("layers.0.self_attn.k_proj.output_scale", DType::kF32, Shape{1}, {1.0f});
  checkpoint.write(folder);
  Loader loader(folder.path(),
                {.quantization_config = int8_config(R"({"type": "int", "strategy": "tensor", "symmetric": false})")});
  const LoadedLinear one = loader.root().linear(LinearRequest{.parts = {whole("a", 1)}, .k = 2});
  EXPECT_EQ(one.weight.format, kI8Channel);
  EXPECT_THAT(floats(one.weight.data), ElementsAre(-128, 3));
  EXPECT_THAT(floats(one.weight.scale), ElementsAre(0.5));
  EXPECT_TRUE(one.activation.zero_point);
  EXPECT_THAT(floats(one.input_scale), ElementsAre(0.5));
  EXPECT_EQ(one.input_zero_point.data<int32_t>()[0], 28);
  // Ranges -78 to 49.5 and -100 to 155: together the second.
  const LoadedLinear two = loader.root().linear(LinearRequest{.parts = {whole("a", 1), whole("b", 1)}, .k = 2});
  EXPECT_THAT(floats(two.input_scale), ElementsAre(1.0));
  EXPECT_EQ(two.input_zero_point.data<int32_t>()[0], -28);
  check_all_consumed(loader.source, [](std::string_view) { return false; });  // nor are the cache's scales left over
  Loader symmetric(folder.path(), {.quantization_config = int8_config(R"({"type": "int", "strategy": "tensor"})")});
  EXPECT_THAT(error_text([&] { symmetric.root().linear(LinearRequest{.parts = {whole("a", 1)}, .k = 2}); }),
              HasSubstr("a.input_zero_point: the zero point is 28, expected 0"));
  Loader floating(folder.path(), {.quantization_config = kDynamic});
  EXPECT_THAT(error_text([&] { floating.root().linear(LinearRequest{.parts = {whole("a", 1)}, .k = 2}); }),
              HasSubstr("a.weight: dtype i8, expected f8_e4m3: quantization_config says fp8_tensor"));
}

TEST(StoredWeights, QuantisesToBlocksAndIntegersWhileLoading) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("a.weight", DType::kBF16, Shape{1, 2}, {127, -2.5f});
  checkpoint.write(folder);
  Loader integers(folder.path(), {.quantization = "int8"});
  const LoadedLinear int8 = integers.root().linear(LinearRequest{.parts = {whole("a", 1)}, .k = 2});
  EXPECT_EQ(int8.activation, kI8DynamicToken);
  EXPECT_THAT(floats(int8.weight.data), ElementsAre(127, -2));
  Loader blocks(folder.path(), {.quantization = "fp8_block"});
  const LoadedLinear block = blocks.root().linear(LinearRequest{.parts = {whole("a", 1)}, .k = 2});
  EXPECT_EQ(block.weight.format, kF8Block);
  EXPECT_THAT(floats(block.weight.scale), ElementsAre(127.0f / 448));
}

TEST(StoredWeights, NanCodesAreErrors) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  constexpr int64_t kRows = 300, kColumns = 517;  // several pieces, and no multiple of a vector
  std::vector<float> values(kRows * kColumns);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 255) - 127.0f;
  add_fp8(checkpoint, "good", Shape{kRows, kColumns}, values, 1.0f, Shape{}, 1.0f);
  values[201 * kColumns + 3] = std::nanf("");
  values[140 * kColumns + 516] = -std::nanf("");
  values[140 * kColumns + 515] = std::nanf("");
  add_fp8(checkpoint, "bad", Shape{kRows, kColumns}, values, 1.0f, Shape{}, 1.0f);
  checkpoint.add("plain.weight", DType::kBF16, Shape{1, kColumns}, std::vector<float>(kColumns, 1.0f));
  checkpoint.write(folder);
  Loader loader(folder.path(),
                {.quantization_config =
                     R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["plain"]})"});
  const auto load = [&](std::vector<LinearPart> parts) {
    return error_text([&] { loader.root().linear(LinearRequest{.parts = std::move(parts), .k = kColumns}); });
  };
  const std::string expected =
      "bad.weight: 3 of its f8_e4m3 codes are NaN (0x7f or 0xff), the first at [140, 515]: "
      "expected numbers (in " +
      folder.path() + "/model.safetensors)";
  EXPECT_EQ(load({whole("good", kRows)}), "no error");
  EXPECT_THAT(load({whole("bad", kRows)}), HasSubstr(expected));
  EXPECT_THAT(load({whole("bad", kRows), whole("plain", 1)}), HasSubstr(expected));  // held as real numbers
  // A rank looks at its own part; the position is the file's.
  Loader second(folder.path(), {.quantization_config = kStatic, .rank = 1, .world_size = 2});
  const LinearPart half{.name = "bad", .n = kRows, .first_n = kRows / 2, .local_n = kRows / 2};
  EXPECT_THAT(
      error_text([&] { second.root().linear(LinearRequest{.parts = {half}, .k = kColumns, .shard = Shard::kColumn}); }),
      HasSubstr("bad.weight: 1 of its f8_e4m3 codes are NaN (0x7f or 0xff), the first at [201, 3]"));
}

}  // namespace
}  // namespace octet
