// Where published checkpoints say how they are quantised, models of which parts are quantised in several ways, and what
// their files have too much or too little of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/checkpoints/tiny_twin.h"

namespace octet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::string_view kStatic =
    R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]})";
constexpr std::string_view kDynamic =
    R"({"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]})";

class Places : public testing::Test {
 protected:
  void add_static(const std::string& module) {
    twin_.add(module, {}, "weight_scale", {});
    twin_.add_scalar(module + ".input_scale", module.ends_with("down_proj") ? 0.08f : 0.02f);
  }
  void add_all(const std::function<void(const std::string& module)>& add) {
    for (const std::string& module : twin_.llama().linears()) add(module);
  }
  std::string quantization() {
    twin_.write(folder_);
    return Engine(tiny_options(folder_)).report().quantization;
  }
  std::string error() {
    return error_text([&] { quantization(); });
  }
  Json& config() { return twin_.llama().config; }

  TinyTwin twin_;
  TestFolder folder_;
};

TEST_F(Places, ConfigurationsAreFoundWhereverTheyAre) {
  add_all([&](const std::string& module) { add_static(module); });
  const Json modelopt =
      parse_json(R"({"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]})", "test");
  for (const Json& file :
       {Json{{"quantization", modelopt}, {"producer", {{"name", "modelopt"}, {"version", "0.23.0"}}}},
        Json{{"quantization", modelopt}}}) {
    folder_.write("hf_quant_config.json", file.dump());
    EXPECT_THAT(quantization(), HasSubstr("fp8_tensor, as stored (ModelOpt), activations static per tensor"));
    EXPECT_EQ(Engine(tiny_options(folder_)).report().kv_cache_dtype, "f8_e4m3");
  }
  // config.json wins, and what it says of the KV cache.
  config()["quantization_config"] = parse_json(kStatic, "test");
  EXPECT_THAT(quantization(), HasSubstr("as stored (AutoFP8)"));
  EXPECT_EQ(Engine(tiny_options(folder_)).report().kv_cache_dtype, "f32");
}

TEST_F(Places, ConfigurationsInsideOthers) {
  add_all([&](const std::string& module) { add_static(module); });
  config()["text_config"] = {{"quantization_config", parse_json(kStatic, "test")}};
  EXPECT_THAT(quantization(), HasSubstr("as stored (AutoFP8)"));
  config().erase("text_config");
  config()["compression_config"] = parse_json(
      R"({"format": "float-quantized", "quant_method": "compressed_tensors", "config_groups": {"group_0": {"targets": ["Linear"],
          "weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8, "type": "float"}}}})",
      "test");
  EXPECT_THAT(quantization(), HasSubstr("fp8_tensor, as stored (compressed-tensors), activations static per tensor"));
}

TEST_F(Places, GroupsOfModules) {
  add_all([&](const std::string& module) {
    if (module.find("self_attn") != std::string::npos) {
      twin_.add(module, {.dtype = DType::kI8, .rows = 1}, "weight_scale");
    } else if (module.find("layers.1.") == std::string::npos) {
      add_static(module);
    }
  });
  config()["quantization_config"] = parse_json(
      R"({"quant_method": "compressed-tensors", "format": "mixed-precision", "ignore": ["lm_head", "re:model.layers.1.mlp.*"],
          "config_groups": {
            "group_0": {"format": "int-quantized", "targets": ["re:.*self_attn.(q|k|v|o)_proj$"],
                        "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
                        "input_activations": {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": true}},
            "group_1": {"format": "float-quantized", "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"},
                        "input_activations": {"num_bits": 8, "type": "float"}},
            "group_2": {"targets": ["LlamaAttention"], "weights": null, "input_activations": {"num_bits": 8, "type": "float"}}}})",
      "test");
  EXPECT_THAT(quantization(), HasSubstr("fp8_tensor and int8_channel, as stored"));
  const TestFolder real;
  twin_.write_real(real);
  EXPECT_LT(largest_difference(answers_of(tiny_options(folder_)), answers_of(tiny_options(real))), 2.0f);
}

TEST_F(Places, APlainLmHeadMayHaveAScale) {
  add_all([&](const std::string& module) { add_static(module); });
  twin_.add_scalar("lm_head.weight_scale", 0.01f, Shape{1});
  twin_.add_scalar("lm_head.input_scale", 0.01f, Shape{1});
  config()["quantization_config"] = parse_json(kStatic, "test");
  testing::internal::CaptureStderr();
  quantization();
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("lm_head.weight_scale is not used: lm_head.weight is not in 8 bits"));
}

TEST_F(Places, AnLmHeadIn8Bits) {
  add_all([&](const std::string& module) { twin_.add(module, {}, "weight_scale", {}); });
  twin_.add("lm_head", {}, "weight_scale", {});
  config()["quantization_config"] = parse_json(R"({"quant_method": "fp8", "activation_scheme": "dynamic"})", "test");
  quantization();
  const TestFolder real;
  twin_.write_real(real);
  EXPECT_LT(largest_difference(answers_of(tiny_options(folder_)), answers_of(tiny_options(real))), 2.0f);
}

TEST_F(Places, HalfAFusedPairIsDamage) {
  add_all([&](const std::string& module) {
    if (module != "model.layers.1.mlp.up_proj") add_static(module);
  });
  config()["quantization_config"] = parse_json(kStatic, "test");
  EXPECT_THAT(error(), AllOf(HasSubstr("model.layers.1.mlp.gate_proj.weight is in 8 bits"),
                             HasSubstr("model.layers.1.mlp.up_proj.weight is not")));
}

TEST_F(Places, ListsContradictFiles) {
  add_all([&](const std::string& module) { twin_.add(module, {}, "weight_scale", {}); });
  config()["quantization_config"] = parse_json(kDynamic, "test");
  config()["quantization_config"]["ignored_layers"] = {"o_proj"};
  EXPECT_THAT(error(), HasSubstr("model.layers.0.self_attn.o_proj.weight: dtype f8_e4m3, expected f32, bf16 or f16: "
                                 "quantization_config does not say that this module is quantised"));
  config().erase("quantization_config");
  EXPECT_THAT(error(), HasSubstr("weight: dtype f8_e4m3, expected f32, bf16 or f16"));
}

// Everything that is missing or too much in one report.
TEST_F(Places, MissingAndExtraScales) {
  add_all([&](const std::string& module) {
    if (module == "model.layers.0.mlp.down_proj") {
      twin_.add(module, {}, "scales_of_mine", {});
    } else if (module == "model.layers.1.self_attn.o_proj") {
      twin_.add(module, {}, "weight_scale", {});  // without input_scale
    } else {
      add_static(module);
    }
  });
  config()["quantization_config"] = parse_json(kStatic, "test");
  EXPECT_THAT(error(), AllOf(HasSubstr("tensors of the model are not in the checkpoint"),
                             HasSubstr("model.layers.0.mlp.down_proj.weight_scale"),
                             HasSubstr("model.layers.0.mlp.down_proj.input_scale"),
                             HasSubstr("model.layers.1.self_attn.o_proj.input_scale"),
                             HasSubstr("tensors of the checkpoint have no place in the model: "
                                       "model.layers.0.mlp.down_proj.scales_of_mine")));
}

TEST_F(Places, BadScalesAndCodes) {
  const std::string module = "model.layers.0.mlp.down_proj";
  struct Case {
    float scale;
    Shape shape;
    DType dtype;
    std::string expected;
  };
  for (const Case& bad : {Case{std::nanf(""), {}, DType::kF32, "the scale is nan, expected a number above 0"},
                          Case{0.0f, {}, DType::kF32, "the scale is 0, expected a number above 0"},
                          Case{-0.5f, Shape{1}, DType::kBF16, "the scale is -0.5, expected a number above 0"},
                          Case{INFINITY, {}, DType::kF32, "the scale is inf, expected a number above 0"},
                          Case{1.0f, Shape{1, 1, 1}, DType::kF32, "shape [1, 1, 1], config says [] or [1] or [1, 1]"},
                          Case{1.0f, {}, DType::kI8, "dtype i8, expected f32 or bf16 or f16"}}) {
    for (const std::string tensor : {"weight_scale", "input_scale"}) {
      TinyTwin twin;
      for (const std::string& name : twin.llama().linears()) {
        twin.add(name, {}, "weight_scale", {});
        twin.add_scalar(name + ".input_scale", 0.02f);
      }
      twin.add_scalar(module + "." + tensor, bad.scale, bad.shape, bad.dtype);
      twin.llama().config["quantization_config"] = parse_json(kStatic, "test");
      const TestFolder folder;
      twin.write(folder);
      EXPECT_THAT(error_text([&] { Engine{tiny_options(folder)}; }),
                  HasSubstr(module + "." + tensor + ": " + bad.expected));
    }
  }
  add_all([&](const std::string& name) { add_static(name); });
  std::vector<float> codes(static_cast<size_t>(64 * 96), 1.0f);
  codes[200] = std::nanf("");
  twin_.checkpoint().add(module + ".weight", DType::kF8E4M3, Shape{64, 96}, codes);
  config()["quantization_config"] = parse_json(kStatic, "test");
  EXPECT_THAT(error(),
              HasSubstr(module + ".weight: 1 of its f8_e4m3 codes are NaN (0x7f or 0xff), the first at [2, 8]"));
}

TEST_F(Places, TwoNamesForOneScale) {
  add_all([&](const std::string& module) { add_static(module); });
  twin_.add_scalar("model.layers.0.mlp.up_proj.weight_scale_inv", 0.5f);
  config()["quantization_config"] = parse_json(kStatic, "test");
  EXPECT_THAT(error(),
              HasSubstr("model.layers.0.mlp.up_proj.weight_scale and model.layers.0.mlp.up_proj.weight_scale_inv: "
                        "expected one of them"));
}

TEST_F(Places, DtypesContradictTheConfiguration) {
  add_all([&](const std::string& module) { twin_.add(module, {.dtype = DType::kI8, .rows = 1}, "weight_scale"); });
  config()["quantization_config"] = parse_json(kDynamic, "test");
  EXPECT_THAT(error(), HasSubstr("weight: dtype i8, expected f8_e4m3: quantization_config says fp8_tensor"));
}

}  // namespace
}  // namespace octet
