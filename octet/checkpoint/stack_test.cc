// Stacks of linears, as a mixture's experts are held.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "octet/checkpoint/weights_for_test.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kStatic = R"({"quant_method": "fp8", "activation_scheme": "static"})";

// Experts 0 and 1: gate and up [1, 2] each.
TestCheckpoint two_experts() {
  TestCheckpoint checkpoint;
  const auto add = [&](const std::string& module, std::vector<float> codes, float scale, float input_scale) {
    checkpoint.add(module + ".weight", DType::kF8E4M3, Shape{1, 2}, codes);
    checkpoint.add(module + ".weight_scale", DType::kF32, Shape{}, {scale});
    checkpoint.add(module + ".input_scale", DType::kF32, Shape{}, {input_scale});
  };
  add("experts.0.w1", {1, 2}, 0.5f, 0.25f);
  add("experts.0.w3", {3, 4}, 0.125f, 0.25f);
  add("experts.1.w1", {5, 6}, 2.0f, 8.0f);
  add("experts.1.w3", {7, 8}, 4.0f, 8.0f);
  return checkpoint;
}

std::vector<LinearRequest> gate_up_of(int64_t experts) {
  std::vector<LinearRequest> requests;
  for (int64_t e = 0; e < experts; ++e) {
    const std::string prefix = std::to_string(e);
    requests.push_back({.parts = {whole(prefix + ".w1", 1), whole(prefix + ".w3", 1)}, .k = 2});
  }
  return requests;
}

TEST(Stack, EveryLinearKeepsItsScales) {
  const TestFolder folder;
  two_experts().write(folder);
  Loader loader(folder.path(), {.quantization_config = kStatic});
  const LoadedLinear stack = (loader.root() / "experts").stack(gate_up_of(2), "w13");
  EXPECT_EQ(stack.weight.data.shape, (Shape{2, 2, 2}));
  EXPECT_EQ(stack.weight.scale.shape, (Shape{2, 2}));
  EXPECT_EQ(stack.weight.format, kF8Channel);
  EXPECT_THAT(floats(stack.weight.data.slice(0)), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(floats(stack.weight.data.slice(1)), ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(floats(stack.weight.scale), ElementsAre(0.5, 0.125, 2, 4));
  EXPECT_EQ(stack.activation, kF8StaticTensor);
  EXPECT_THAT(floats(stack.input_scale), ElementsAre(0.25, 8));
  check_all_consumed(loader.source, [](std::string_view) { return false; });
}

TEST(Stack, LinearsThatDisagreeAreHeldAsRealNumbers) {
  const TestFolder folder;
  TestCheckpoint checkpoint = two_experts();
  for (const char* leaf : {"w1", "w3"}) {
    checkpoint.remove(std::string("experts.1.") + leaf + ".weight_scale");
    checkpoint.remove(std::string("experts.1.") + leaf + ".input_scale");
    checkpoint.add(std::string("experts.1.") + leaf + ".weight", DType::kF32, Shape{1, 2}, {0.3f, -0.7f});
  }
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization_config = kStatic});
  testing::internal::CaptureStderr();
  const LoadedLinear stack = (loader.root() / "experts").stack(gate_up_of(2), "w13");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("experts.w13 have different schemes: all are held in f32"));
  EXPECT_FALSE(stack.weight.format.quantized());
  EXPECT_FALSE(stack.activation.quantized());
  EXPECT_THAT(floats(stack.weight.data.slice(0)), ElementsAre(0.5, 1, 0.375, 0.5));
  EXPECT_THAT(floats(stack.weight.data.slice(1)), ElementsAre(0.3f, -0.7f, 0.3f, -0.7f));
}

// Rows of a tensor [2, 3, 2] that holds gate (1 row) and up (2 rows) of two experts, on the second of two ranks too.
TEST(Stack, PartsOfOneTensor) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("experts.gate_up_proj", DType::kBF16, Shape{2, 3, 2}, ramp(12, 1, 1));
  checkpoint.write(folder);
  Loader loader(folder.path(), {.rank = 1, .world_size = 2});
  std::vector<LinearRequest> requests;
  for (int64_t e = 0; e < 2; ++e) {
    LinearPart gate = whole("gate", 1), up{.name = "up", .n = 2, .first_n = 1, .local_n = 1};
    gate.stack = LinearPart::Stack{.tensor = "experts.gate_up_proj", .shape = Shape{2, 3, 2}, .first_row = 3 * e};
    up.stack = LinearPart::Stack{.tensor = "experts.gate_up_proj", .shape = Shape{2, 3, 2}, .first_row = 3 * e + 1};
    requests.push_back({.parts = {gate, up}, .k = 2, .shard = Shard::kColumn});
  }
  const LoadedLinear stack = (loader.root() / "experts").stack(requests, "gate_up");
  EXPECT_THAT(floats(stack.weight.data.slice(0)), ElementsAre(1, 2, 5, 6));
  EXPECT_THAT(floats(stack.weight.data.slice(1)), ElementsAre(7, 8, 11, 12));
  check_all_consumed(loader.source, [](std::string_view) { return false; });
  requests[1].parts[0].stack->shape = Shape{2, 4, 2};
  EXPECT_THAT(error_text([&] { (loader.root() / "experts").stack(requests, "gate_up"); }),
              HasSubstr("experts.gate_up_proj: shape [2, 3, 2], config says [2, 4, 2]"));
}

TEST(Stack, RoutersStayPlainUnlessTheFileHasThemInEightBits) {
  const TestFolder folder;
  TestCheckpoint checkpoint = two_experts();
  checkpoint.add("gate.weight", DType::kF32, Shape{1, 2}, {1.5f, 0.25f});
  checkpoint.write(folder);
  const LinearRequest request{.parts = {whole("gate", 1)}, .k = 2, .keep_plain = true};
  const std::vector<Loader::Options> ways = {{.quantization = "fp8"}, {.quantization_config = kStatic}};
  for (const Loader::Options& options : ways) {
    Loader loader(folder.path(), options);
    const LoadedLinear gate = loader.root().linear(request);
    EXPECT_EQ(gate.weight.format, plain_format(DType::kF32));
    EXPECT_FALSE(gate.activation.quantized());
    EXPECT_THAT(floats(gate.weight.data), ElementsAre(1.5, 0.25));
    EXPECT_TRUE(loader.source.found_plain.empty());
  }
  Loader stored(folder.path(), {.quantization_config = kStatic});
  LinearRequest eight_bits = request;
  eight_bits.parts[0].name = "experts.0.w1";
  EXPECT_EQ(stored.root().linear(eight_bits).weight.format, kF8Tensor);
}

TEST(Stack, NamesAndOtherRanks) {
  const TestFolder folder;
  two_experts().write(folder);
  Loader loader(folder.path(), {.quantization_config = kStatic});
  EXPECT_THAT((loader.root() / "experts" / 1 / "w3").names(), ElementsAre("input_scale", "weight", "weight_scale"));
  EXPECT_TRUE((loader.root() / "expert").names().empty());
  (loader.root() / "experts" / 0).leave_to_other_ranks();
  EXPECT_THAT(error_text([&] { check_all_consumed(loader.source, [](std::string_view) { return false; }); }),
              HasSubstr("6 tensors of the checkpoint have no place in the model: experts.1.w1.input_scale"));
}

}  // namespace
}  // namespace octet
