#include "octet/checkpoint/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <fstream>
#include <optional>

#include "octet/checkpoint/test_folder.h"
#include "octet/tensor/dispatch.h"

extern "C" __attribute__((weak)) void __tsan_init();  // there with the thread sanitizer only

namespace octet {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

// A checkpoint written byte by byte, apart from the writer of this folder.
class TestCheckpoint {
 public:
  void add(const std::string& name, DType dtype, Shape shape, const std::vector<float>& values) {
    Json dims = Json::array();
    for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
    const size_t begin = bytes_.size();
    if (dtype == DType::kI8 || dtype == DType::kU8) {
      for (const float value : values) bytes_ += static_cast<char>(static_cast<int>(value));
    } else {
      add_real(dtype, values);
    }
    header_[name] = {
        {"dtype", dtype_safetensors_name(dtype)}, {"shape", dims}, {"data_offsets", {begin, bytes_.size()}}};
  }
  void add_real(DType dtype, const std::vector<float>& values) {
    dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3>(dtype, [&]<DType D>() {
      for (const float value : values) {
        const CType<D> element = from_f32<CType<D>>(value);
        bytes_.append(reinterpret_cast<const char*>(&element), sizeof(element));
      }
    });
  }
  // `misalign`: the data begins at an odd address.
  void write(const TestFolder& folder, bool misalign = false) const {
    std::string header = header_.dump();
    while ((header.size() % 2 == 1) != misalign) header += ' ';
    uint64_t length = header.size();
    std::string file(reinterpret_cast<const char*>(&length), 8);
    folder.write("model.safetensors", file + header + bytes_);
  }

 private:
  Json header_;
  std::string bytes_;
};

std::vector<float> ramp(size_t count, float first, float step) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = first + step * static_cast<float>(i);
  return values;
}

std::vector<float> floats(ConstTensor tensor) {
  std::vector<float> values;
  const int64_t columns = tensor.rank() == 2 ? tensor.dim(1) : 1;
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI8>(tensor.dtype, [&]<DType D>() {
    for (int64_t r = 0; r < tensor.dim(0); ++r) {
      for (int64_t c = 0; c < columns; ++c) values.push_back(static_cast<float>(to_f32(tensor.row<CType<D>>(r)[c])));
    }
  });
  return values;
}

// One rank that loads from a folder, or dummy weights.
class Loader {
 public:
  struct Options {
    std::string quantization;
    std::string quantization_config;  // JSON
    DType plain = DType::kF32;
    int rank = 0;
    int world_size = 1;
    bool quantize_lm_head = false;
  };
  explicit Loader(const std::string& folder) : Loader(folder, Options()) {}
  Loader(const std::string& folder, const Options& options)
      : json_(options.quantization_config.empty() ? Json() : parse_json(options.quantization_config, "test")),
        quant_(json_.is_null() ? nullptr : &json_,
               QuantOptions{.quantization = options.quantization, .quantize_lm_head = options.quantize_lm_head},
               options.plain) {
    if (!folder.empty()) files_.emplace(folder);
    source.files = files_ ? &*files_ : nullptr;
    source.quant = &quant_;
    source.threads = &threads_;
    source.plain_dtype = options.plain;
    source.rank = options.rank;
    source.world_size = options.world_size;
    source.allocate = [this](DType dtype, Shape shape, std::string_view) {
      memory_.emplace_back(static_cast<size_t>(shape.num_elements() * dtype_bytes(dtype)), std::byte{0x7f});
      return Tensor(memory_.back().data(), dtype, shape);
    };
  }
  Weights root() { return Weights(source); }

  WeightSource source;

 private:
  Json json_;
  QuantConfig quant_;
  ThreadPool threads_{2};
  std::optional<SafetensorsFolder> files_;
  std::deque<std::vector<std::byte>> memory_;
};

LinearPart whole(const std::string& name, int64_t n) { return LinearPart{.name = name, .n = n, .local_n = n}; }

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

constexpr const char* kStatic = R"({"quant_method": "fp8", "activation_scheme": "static"})";
constexpr const char* kDynamic = R"({"quant_method": "fp8", "activation_scheme": "dynamic"})";

void add_fp8(TestCheckpoint& checkpoint, const std::string& module, Shape shape, const std::vector<float>& codes,
             float scale, Shape scale_shape, float input_scale) {
  checkpoint.add(module + ".weight", DType::kF8E4M3, shape, codes);
  checkpoint.add(module + ".weight_scale", DType::kF32, scale_shape, {scale});
  if (input_scale > 0) checkpoint.add(module + ".input_scale", DType::kF32, scale_shape, {input_scale});
}

TEST(Weights, StoredFp8KeepsCodesAndScales) {
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

TEST(Weights, FormatsWithoutAFastKernelAreHeldAsRealNumbers) {
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
TEST(Weights, NothingIsQuantisedForASlowKernel) {
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

TEST(Weights, TheFileSaysWhatIsQuantised) {
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

TEST(Weights, BadScalesAreErrors) {
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

TEST(Weights, StoredBlocksKeepTheirScales) {
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
  Loader many(folder.path(), {.quantization_config = kBlocks, .rank = 1, .world_size = 40});
  EXPECT_THAT(error_text([&] {
                many.root().linear(LinearRequest{.parts = {whole("a", 128)}, .k = 320, .shard = Shard::kRow});
              }),
              HasSubstr("320 input channels in blocks of 128 cannot be split over 40 ranks; 1, 2, 4, 5, 10 can"));
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

TEST(Weights, StoredIntegersWithZeroPoints) {
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

TEST(Weights, QuantisesToBlocksAndIntegersWhileLoading) {
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

TEST(Weights, NanCodesAreErrors) {
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
