#include "octet/checkpoint/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "octet/checkpoint/weights_for_test.h"

extern "C" __attribute__((weak)) void __tsan_init();  // there with the thread sanitizer only

namespace octet {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Weights, FusesAndConvertsPlainParts) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("m.a.weight", DType::kBF16, Shape{2, 3}, ramp(6, 0, 1));
  checkpoint.add("m.b.weight", DType::kF16, Shape{1, 3}, ramp(3, 10, 0.5f));
  checkpoint.add("m.a.bias", DType::kBF16, Shape{2}, {1, 2});
  checkpoint.add("m.b.bias", DType::kF32, Shape{1}, {3});
  for (const bool misalign : {false, true}) {
    checkpoint.write(folder, misalign);
    Loader loader(folder.path());
    const LoadedLinear linear =
        (loader.root() / "m").linear(LinearRequest{.parts = {whole("a", 2), whole("b", 1)}, .k = 3, .bias = true});
    EXPECT_EQ(linear.weight.format, plain_format(DType::kF32));
    EXPECT_FALSE(linear.activation.quantized());
    EXPECT_THAT(floats(linear.weight.data), ElementsAre(0, 1, 2, 3, 4, 5, 10, 10.5, 11));
    EXPECT_THAT(floats(linear.bias), ElementsAre(1, 2, 3));
    EXPECT_EQ(loader.source.weight_bytes, (9 + 3) * 4);
    check_all_consumed(loader.source, [](std::string_view) { return false; });
  }
}

TEST(Weights, ShardsColumnsAndRows) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("a.weight", DType::kBF16, Shape{4, 4}, ramp(16, 0, 1));
  checkpoint.add("a.bias", DType::kF32, Shape{4}, ramp(4, 0, 1));
  checkpoint.write(folder);
  for (const int rank : {0, 1}) {
    Loader loader(folder.path(), {.plain = DType::kBF16, .rank = rank, .world_size = 2});
    const float base = static_cast<float>(rank);
    const LinearPart half{.name = "a", .n = 4, .first_n = 2 * rank, .local_n = 2};
    const LoadedLinear column =
        loader.root().linear(LinearRequest{.parts = {half}, .k = 4, .shard = Shard::kColumn, .bias = true});
    EXPECT_EQ(floats(column.weight.data), ramp(8, 8 * base, 1));
    EXPECT_EQ(floats(column.bias), ramp(2, 2 * base, 1));
    const LoadedLinear row =
        loader.root().linear(LinearRequest{.parts = {whole("a", 4)}, .k = 4, .shard = Shard::kRow, .bias = true});
    EXPECT_THAT(floats(row.weight.data), ElementsAre(2 * base, 2 * base + 1, 2 * base + 4, 2 * base + 5, 2 * base + 8,
                                                     2 * base + 9, 2 * base + 12, 2 * base + 13));
    EXPECT_EQ(row.bias.empty(), rank == 1);  // outputs are summed over ranks
    check_all_consumed(loader.source, [](std::string_view) { return false; });
  }
}

TEST(Weights, PadsRowsBeyondTheMatrix) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("lm_head.weight", DType::kF32, Shape{3, 2}, ramp(6, 1, 1));
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization = "fp8", .rank = 1, .world_size = 2, .quantize_lm_head = true});
  EXPECT_THAT(floats(loader.root().parameter_rows("lm_head.weight", Shape{3, 2}, 2, 2, DType::kF32)),
              ElementsAre(5, 6, 0, 0));
  const LinearPart part{.name = "lm_head", .n = 3, .first_n = 2, .local_n = 2};
  const LoadedLinear head = loader.root().linear(LinearRequest{.parts = {part}, .k = 2, .shard = Shard::kColumn});
  EXPECT_THAT(floats(head.weight.scale), ElementsAre(6.0f / 448.0f, 1.0f));
  EXPECT_THAT(floats(head.weight.data), ElementsAre(384, 448, 0, 0));  // 5 / (6 / 448) = 373.3, between 352 and 384
}

// Powers of two are exact in E4M3, and 448 is the largest code.
TEST(Weights, QuantisesWhileLoading) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("a.weight", DType::kBF16, Shape{2, 2}, {7, 3.5, -0.875, 0.4375});
  checkpoint.add("b.weight", DType::kF16, Shape{1, 2}, {28, -14});
  for (const bool misalign : {false, true}) {
    checkpoint.write(folder, misalign);
    const LinearRequest request{.parts = {whole("a", 2), whole("b", 1)}, .k = 2};
    Loader channel(folder.path(), {.quantization = "fp8"});
    const LoadedLinear by_channel = channel.root().linear(request);
    EXPECT_EQ(by_channel.weight.format, kF8Channel);
    EXPECT_EQ(by_channel.activation, kF8DynamicToken);
    EXPECT_THAT(floats(by_channel.weight.scale), ElementsAre(7.0f / 448, 0.875f / 448, 28.0f / 448));
    EXPECT_THAT(floats(by_channel.weight.data), ElementsAre(448, 224, -448, 224, 448, -224));
    EXPECT_EQ(channel.source.weight_bytes, 6 + 12);
    EXPECT_EQ(channel.source.scale_bytes, 12);
    // Per tensor: each part keeps its own scale, one per channel in memory because there are two.
    Loader tensor(folder.path(), {.quantization = "fp8_tensor"});
    const LoadedLinear by_tensor = tensor.root().linear(request);
    EXPECT_EQ(by_tensor.weight.format, kF8Channel);
    EXPECT_THAT(floats(by_tensor.weight.scale), ElementsAre(7.0f / 448, 7.0f / 448, 28.0f / 448));
    EXPECT_THAT(floats(by_tensor.weight.data), ElementsAre(448, 224, -56, 28, 448, -224));
    const LoadedLinear one = tensor.root().linear(LinearRequest{.parts = {whole("a", 2)}, .k = 2});
    EXPECT_EQ(one.weight.format, kF8Tensor);
    EXPECT_THAT(floats(one.weight.scale), ElementsAre(7.0f / 448));
  }
}

TEST(Weights, ScalesOfShardedMatricesComeFromAllRanks) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("a.weight", DType::kBF16, Shape{2, 4}, {1, -2, 7, 3, 14, 1, 1, 1});
  checkpoint.write(folder);
  for (const std::string quantization : {"fp8", "fp8_tensor"}) {
    Loader loader(folder.path(), {.quantization = quantization, .rank = 0, .world_size = 2});
    std::vector<float> asked;
    loader.source.all_reduce_max = [&](std::span<float> values) {
      asked.assign(values.begin(), values.end());
      for (float& value : values) value = std::max(value, 7.0f);  // what the other rank has
    };
    const LoadedLinear row =
        loader.root().linear(LinearRequest{.parts = {whole("a", 2)}, .k = 4, .shard = Shard::kRow});
    if (quantization == "fp8") {
      EXPECT_THAT(asked, ElementsAre(2, 14));
      EXPECT_THAT(floats(row.weight.scale), ElementsAre(7.0f / 448, 14.0f / 448));
      EXPECT_THAT(floats(row.weight.data), ElementsAre(64, -128, 448, 32));
    } else {
      EXPECT_THAT(asked, ElementsAre(14));
      EXPECT_THAT(floats(row.weight.scale), ElementsAre(14.0f / 448));
    }
  }
}

TEST(Weights, NanBecomesNoInteger) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("bad.weight", DType::kBF16, Shape{2, 3}, {1, 2, std::nanf(""), 4, 5, 6});
  checkpoint.add("good.weight", DType::kBF16, Shape{2, 3}, {1, 2, 3, 4, 5, 6});
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization = "int8"});
  const auto load = [&](const char* name) {
    return error_text([&] { loader.root().linear(LinearRequest{.parts = {whole(name, 2)}, .k = 3}); });
  };
  EXPECT_EQ(load("good"), "no error");
  EXPECT_THAT(load("bad"), HasSubstr("bad.weight: 1 of its elements are NaN: expected numbers"));
}

TEST(Weights, WrongShapesAndDtypesAreErrors) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("model.layers.3.mlp.up_proj.weight", DType::kBF16, Shape{2, 3}, ramp(6, 0, 1));
  checkpoint.add("norm.weight", DType::kF8E4M3, Shape{2}, {1, 1});
  checkpoint.write(folder);
  for (const std::string quantization : {"", "fp8"}) {
    Loader loader(folder.path(), {.quantization = quantization});
    const Weights mlp = loader.root() / "model" / "layers" / 3 / "mlp";
    EXPECT_THAT(error_text([&] { mlp.linear(LinearRequest{.parts = {whole("up_proj", 4)}, .k = 3}); }),
                HasSubstr("model.layers.3.mlp.up_proj.weight: shape [2, 3], config says [4, 3]"));
    EXPECT_THAT(error_text([&] { loader.root().parameter("norm.weight", Shape{2}, DType::kF32); }),
                HasSubstr("norm.weight: dtype f8_e4m3, expected f32, bf16 or f16"));
  }
}

TEST(Weights, MissingAndLeftOverTensorsAreNamed) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  checkpoint.add("a.weight", DType::kBF16, Shape{1, 1}, {1});
  checkpoint.add("strange.weight", DType::kBF16, Shape{1, 1}, {1});
  checkpoint.add("rotary.inv_freq", DType::kF32, Shape{1}, {1});
  checkpoint.write(folder);
  Loader loader(folder.path(), {.quantization = "fp8"});
  loader.root().linear(LinearRequest{.parts = {whole("a", 1), whole("b", 1)}, .k = 1, .bias = true});
  loader.root().parameter("norm.weight", Shape{4}, DType::kF32);
  const std::string text = error_text(
      [&] { check_all_consumed(loader.source, [](std::string_view name) { return name == "rotary.inv_freq"; }); });
  EXPECT_EQ(text,
            "4 tensors of the model are not in the checkpoint: b.weight, a.bias, b.bias, norm.weight; "
            "1 tensors of the checkpoint have no place in the model: strange.weight");
}

TEST(Weights, DummyWeightsAreTheSameOnAnyNumberOfRanks) {
  for (const std::string quantization : {"", "fp8"}) {
    Loader one("", {.quantization = quantization});
    const LoadedLinear full = one.root().linear(LinearRequest{.parts = {whole("a", 4)}, .k = 6});
    EXPECT_THAT(floats(one.root().parameter("norm.weight", Shape{3}, DType::kF32)), Each(1.0f));
    const std::vector<float> values = floats(full.weight.data);
    Loader second("", {.quantization = quantization, .rank = 1, .world_size = 2});
    const LinearPart half{.name = "a", .n = 4, .first_n = 2, .local_n = 2};
    const LoadedLinear column = second.root().linear(LinearRequest{.parts = {half}, .k = 6, .shard = Shard::kColumn});
    EXPECT_EQ(floats(column.weight.data), std::vector<float>(values.begin() + 12, values.end()));
    if (quantization.empty()) {
      const LoadedLinear row =
          second.root().linear(LinearRequest{.parts = {whole("a", 4)}, .k = 6, .shard = Shard::kRow});
      EXPECT_EQ(floats(row.weight.data), floats(full.weight.data.columns(3, 3)));
      for (const float value : values) EXPECT_LE(std::abs(value), 0.05f);
      EXPECT_NE(values[0], values[1]);
    }
  }
}

// As on a GPU: what was written is copied away, and its memory used for other things.
TEST(Weights, EveryParameterIsPlacedOnce) {
  for (const auto dummies : {WeightSource::Dummies::kByElement, WeightSource::Dummies::kTiled}) {
    for (const std::string quantization : {"", "fp8"}) {
      Loader here("", {.quantization = quantization});
      Loader there("", {.quantization = quantization});
      here.source.dummies = there.source.dummies = dummies;
      std::deque<std::vector<std::byte>> copies;
      there.source.place = [&](Tensor written) {
        copies.emplace_back(written.bytes, written.bytes + written.num_bytes());
        std::memset(written.bytes, 0x55, static_cast<size_t>(written.num_bytes()));
        return Tensor(copies.back().data(), written.dtype, written.shape);
      };
      const LinearRequest request{.parts = {whole("a", 4), whole("b", 2)}, .k = 6, .bias = true};
      const LoadedLinear expected = here.root().linear(request);
      const LoadedLinear found = there.root().linear(request);
      EXPECT_EQ(floats(found.weight.data), floats(expected.weight.data));
      EXPECT_EQ(floats(found.bias), floats(expected.bias));
      ASSERT_EQ(found.weight.scale.empty(), quantization.empty());
      if (!quantization.empty()) {
        EXPECT_EQ(floats(found.weight.scale), floats(expected.weight.scale));
      }
      EXPECT_EQ(copies.size(), quantization.empty() ? 2u : 3u);
      const Shape shape{4, 6};
      EXPECT_EQ(floats(there.root().parameter_rows("t", shape, 2, 3, DType::kF32)),
                floats(here.root().parameter_rows("t", shape, 2, 3, DType::kF32)));
      EXPECT_EQ(floats(there.root().parameter("p", Shape{5}, DType::kF32)),
                floats(here.root().parameter("p", Shape{5}, DType::kF32)));
    }
  }
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// The peak is the quantised model and one tensor of the file, not the file.
TEST(Weights, LoadingNeedsTheModelAndOneTensor) {
  if (&__tsan_init != nullptr) GTEST_SKIP() << "the thread sanitizer keeps several bytes for each of the program's";
  const TestFolder folder;
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kTensors = 12, kRows = 1024, kColumns = 2048;  // 4 MiB each in BF16
  {
    TestCheckpoint checkpoint;
    for (int64_t i = 0; i < kTensors; ++i) {
      checkpoint.add(fmt::format("t{}.weight", i), DType::kBF16, Shape{kRows, kColumns},
                     ramp(kRows * kColumns, 0, 1e-3f));
    }
    checkpoint.write(folder);
  }
  Loader loader(folder.path(), {.quantization = "fp8"});
  int64_t read = 0, peak = 0;
  loader.source.on_progress = [&](int64_t bytes) {
    read += bytes;
    peak = std::max(peak, resident_bytes());
  };
  const int64_t before = resident_bytes();
  for (int64_t i = 0; i < kTensors; ++i) {
    loader.root().linear(LinearRequest{.parts = {whole(fmt::format("t{}", i), kRows)}, .k = kColumns});
  }
  EXPECT_EQ(read, kTensors * 4 * kMiB);
  EXPECT_LT(peak - before,
            (kTensors * 2 + 4 + 6) * kMiB);  // 24 of the model, 4 of a tensor, 6 for the allocator; the file has 48
}

}  // namespace
}  // namespace octet
