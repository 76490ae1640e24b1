#include "octet/quantizer/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "octet/checkpoint/weights_for_test.h"
#include "octet/quantizer/plan.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kAttention = "model.layers.0.self_attn.";

// q has the magnitude 448 and k 224, so that per tensor both have the scale 1.
TestCheckpoint small_checkpoint() {
  TestCheckpoint checkpoint;
  checkpoint.add("model.embed_tokens.weight", DType::kBF16, {2, 4}, ramp(8, 1, 1));
  checkpoint.add(kAttention + "q_proj.weight", DType::kBF16, {2, 4}, {448, -1, 2, 3, 1.0625f, 17, 0, 0.5f});
  checkpoint.add(kAttention + "k_proj.weight", DType::kBF16, {1, 4}, {-224, 112, 56, 0});
  checkpoint.add(kAttention + "v_proj.weight", DType::kBF16, {1, 4}, {1, 2, 3, 4});
  checkpoint.add(kAttention + "o_proj.weight", DType::kBF16, {2, 2}, {1, -2, 3, 4});
  checkpoint.add("model.layers.0.mlp.gate.weight", DType::kBF16, {2, 4}, ramp(8, 1, 1));  // a router
  checkpoint.add("model.layers.10.mlp.down_proj.weight", DType::kBF16, {1, 2}, {1, 2});
  checkpoint.add("model.layers.2.mlp.down_proj.weight", DType::kBF16, {1, 2}, {0, 0});
  checkpoint.add("model.norm.weight", DType::kBF16, {4}, {1, 1, 1, 1});
  return checkpoint;
}

class Quantize : public testing::Test {
 protected:
  Quantize() { make_source(small_checkpoint()); }

  void make_source(const TestCheckpoint& checkpoint) {
    std::filesystem::create_directories(source());
    checkpoint.write(folder);
    std::filesystem::rename(folder / "model.safetensors", source() + "/model.safetensors");
    folder.write("source/config.json", R"({"architectures": ["AnyForCausalLM"], "hidden_size": 4})");
    folder.write("source/tokenizer.json", "{\"t\":1}");
    folder.write("source/README.md", "not copied");
  }

  std::string source() const { return folder / "source"; }
  std::string out() const { return folder / "out"; }
  QuantizeOptions options(const std::string& scheme) const {
    return {.model_folder = source(), .out_folder = out(), .scheme = scheme, .num_threads = 2};
  }
  std::string error(QuantizeOptions what) const {
    return error_text([&] { quantize_checkpoint(what); });
  }
  Json config() const { return read_json_file(out() + "/config.json"); }

  TestFolder folder;
};

std::vector<float> scales_of(const SafetensorsFolder& files, const std::string& name) {
  const ConstTensor tensor = files.tensor(name);
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(float));
  return values;
}

TEST_F(Quantize, PerTensorSharesTheScaleOfWhatIsFused) {
  const QuantizeReport report = quantize_checkpoint(options("fp8"));
  EXPECT_EQ(report.dialect, "autofp8");
  EXPECT_EQ(report.linears.size(), 6u);
  EXPECT_EQ(report.num_copied, 3);
  const SafetensorsFolder files(out());
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    EXPECT_EQ(files.find(kAttention + name + ".weight_scale")->shape, Shape{}) << name;
    EXPECT_THAT(scales_of(files, kAttention + name + ".weight_scale"), ElementsAre(1.0f)) << name;
  }
  // 1.0625 is half way between 1 and 1.125 and goes to the even code; 17 half way between 16 and 18.
  EXPECT_THAT(floats(files.tensor(kAttention + "q_proj.weight")),
              ElementsAre(448.f, -1.f, 2.f, 3.f, 1.f, 16.f, 0.f, 0.5f));
  EXPECT_THAT(scales_of(files, kAttention + "o_proj.weight_scale"), ElementsAre(4.0f / 448.0f));
  EXPECT_EQ(files.find("model.norm.weight")->dtype, DType::kBF16);
  EXPECT_EQ(floats(files.tensor("model.embed_tokens.weight")), ramp(8, 1, 1));
  EXPECT_EQ(read_file(out() + "/tokenizer.json", 100), "{\"t\":1}");
  EXPECT_FALSE(std::filesystem::exists(out() + "/README.md"));
  EXPECT_FALSE(std::filesystem::exists(out() + ".partial"));
  EXPECT_EQ(config().at("hidden_size"), 4);
  EXPECT_EQ(config().at("quantization_config"), Json({{"quant_method", "fp8"},
                                                      {"activation_scheme", "dynamic"},
                                                      {"ignored_layers", {"lm_head", "model.layers.0.mlp.gate"}}}));
  EXPECT_EQ(config().at("quantized_by").at("scheme"), "fp8");
}

TEST_F(Quantize, PerChannel) {
  const QuantizeReport report = quantize_checkpoint(options("fp8_dynamic"));
  EXPECT_EQ(report.dialect, "compressed-tensors");
  const SafetensorsFolder files(out());
  EXPECT_EQ(files.find(kAttention + "q_proj.weight_scale")->shape, (Shape{2, 1}));
  EXPECT_THAT(scales_of(files, kAttention + "q_proj.weight_scale"), ElementsAre(1.0f, 17.0f / 448.0f));
  EXPECT_THAT(scales_of(files, kAttention + "k_proj.weight_scale"), ElementsAre(0.5f));
  EXPECT_THAT(floats(files.tensor(kAttention + "k_proj.weight")), ElementsAre(-448.f, 224.f, 112.f, 0.f));
  const LinearFigures& k = report.linears.at(0);
  EXPECT_EQ(k.module, kAttention + "k_proj");
  EXPECT_EQ(k.weight_error, 0.0);
  const Json json = read_json_file(out() + "/report.json");
  EXPECT_EQ(json.at("linears").size(), 6u);
  EXPECT_FALSE(json.contains("seconds"));
  const std::string page = read_file(out() + "/report.html", 1 << 20);
  EXPECT_THAT(page, HasSubstr("<td>model.layers.0.self_attn.o_proj</td><td>2 x 2</td>"));
  EXPECT_THAT(page, HasSubstr("</svg>"));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

TEST_F(Quantize, Int8RoundsToTheNearest) {
  quantize_checkpoint(options("int8"));
  const SafetensorsFolder files(out());
  EXPECT_THAT(scales_of(files, kAttention + "o_proj.weight_scale"), ElementsAre(2.0f / 127.0f, 4.0f / 127.0f));
  EXPECT_THAT(floats(files.tensor(kAttention + "o_proj.weight")), ElementsAre(64.f, -127.f, 95.f, 127.f));
}

TEST_F(Quantize, ZerosStayZeros) {
  quantize_checkpoint(options("fp8_block"));
  const SafetensorsFolder files(out());
  EXPECT_THAT(floats(files.tensor("model.layers.2.mlp.down_proj.weight")), ElementsAre(0.f, 0.f));
  EXPECT_GT(scales_of(files, "model.layers.2.mlp.down_proj.weight_scale_inv").at(0), 0.0f);
}

TEST_F(Quantize, RefusesWhatItCannotKeep) {
  EXPECT_THAT(error(options("fp9")), HasSubstr("scheme \"fp9\""));
  QuantizeOptions wrong = options("int8");
  wrong.dialect = "autofp8";
  EXPECT_THAT(error(wrong), HasSubstr("dialect \"autofp8\" cannot say int8_channel"));
  wrong = options("fp8");
  wrong.ignore = {"mlp.down"};
  EXPECT_THAT(error(wrong), HasSubstr("ignore \"mlp.down\": no linear"));
  wrong.ignore = {"k_proj"};
  EXPECT_THAT(error(wrong), HasSubstr("self_attn.k_proj is ignored, but not what it is fused with"));
  wrong = options("fp8");
  wrong.out_folder = source();
  EXPECT_THAT(error(wrong), HasSubstr("is the model itself"));
  folder.write("out/x", "");
  EXPECT_THAT(error(options("fp8")), HasSubstr("out: exists and is not an empty folder"));
}

TEST_F(Quantize, RefusesBadSources) {
  folder.write("source/config.json", R"({"quantization_config": {"quant_method": "fp8"}})");
  EXPECT_THAT(error(options("fp8")), HasSubstr("quantised already (quantization_config)"));
  TestCheckpoint with_nan = small_checkpoint();
  with_nan.add("model.layers.1.mlp.down_proj.weight", DType::kBF16, {2, 2}, {1, 2, 3, std::nanf("")});
  make_source(with_nan);
  EXPECT_THAT(error(options("fp8")), HasSubstr("model.layers.1.mlp.down_proj.weight: the number at [1, 1] is nan"));
  EXPECT_FALSE(std::filesystem::exists(out()));
  std::filesystem::remove_all(out() + ".partial");
  TestCheckpoint with_codes = small_checkpoint();
  with_codes.add("model.layers.1.mlp.down_proj.weight", DType::kF8E4M3, {1, 2}, {1, 2});
  make_source(with_codes);
  EXPECT_THAT(error(options("fp8")), HasSubstr("down_proj.weight: dtype f8_e4m3: the checkpoint is quantised already"));
}

TEST_F(Quantize, IgnoresWhatTheUserSays) {
  QuantizeOptions what = options("fp8_channel");
  what.ignore = {"re:layers\\.0\\.self_attn", "lm_head"};
  EXPECT_EQ(quantize_checkpoint(what).linears.size(), 2u);
  EXPECT_THAT(config().at("quantization_config").at("ignore").get<std::vector<std::string>>(),
              ElementsAre("lm_head", "model.layers.0.mlp.gate", kAttention + "k_proj", kAttention + "o_proj",
                          kAttention + "q_proj", kAttention + "v_proj"));
}

// Ended at every moment at which it reports progress, and then continued, it writes what it writes in one go.
TEST_F(Quantize, ContinuesWithTheSameBytes) {
  QuantizeOptions what = options("fp8");
  quantize_checkpoint(what);
  const std::string whole = read_file(out() + "/model.safetensors", 1 << 20);
  const std::string whole_config = read_file(out() + "/config.json", 1 << 20);
  for (int last = 1; last <= 7; ++last) {
    std::filesystem::remove_all(out());
    int calls = 0;
    what.resume = false;
    what.on_progress = [&](int64_t, int64_t) {
      if (++calls == last) throw std::runtime_error("interrupted");
    };
    EXPECT_THROW(quantize_checkpoint(what), std::runtime_error);
    EXPECT_FALSE(std::filesystem::exists(out()));
    EXPECT_FALSE(std::filesystem::exists(out() + ".partial/config.json"));
    EXPECT_THAT(error(what), HasSubstr("continue it with --resume"));
    what.resume = true;
    QuantizeOptions other = what;
    other.scheme = "int8";
    EXPECT_THAT(error(other), HasSubstr("the interrupted run had scheme \"fp8\", this one \"int8\""));
    what.on_progress = nullptr;
    EXPECT_EQ(quantize_checkpoint(what).linears.size(), 6u);
    EXPECT_EQ(read_file(out() + "/model.safetensors", 1 << 20), whole) << last;
    EXPECT_EQ(read_file(out() + "/config.json", 1 << 20), whole_config) << last;
  }
}

TEST(QuantizePlan, NumbersInNamesCount) {
  EXPECT_TRUE(comes_before("layers.2.a", "layers.10.a"));
  EXPECT_FALSE(comes_before("layers.10.a", "layers.2.a"));
  EXPECT_TRUE(comes_before("layers.2", "layers.2.a"));
  EXPECT_TRUE(comes_before("a.0", "a.00"));
  EXPECT_FALSE(comes_before("a", "a"));
}

}  // namespace
}  // namespace octet
