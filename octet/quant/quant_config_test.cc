#include "octet/quant/quant_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "octet/base/error.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

QuantConfig config_of(std::string_view json, const QuantOptions& options = {}) {
  if (json.empty()) return QuantConfig(nullptr, options, DType::kBF16);
  const Json object = parse_json(json, "test");
  return QuantConfig(&object, options, DType::kBF16);
}

std::string error_of(ErrorCode code, std::string_view json, const QuantOptions& options = {}) {
  try {
    config_of(json, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown for " << json;
  return "";
}

std::string schemes_of(const QuantConfig& config, std::string_view module) {
  const LinearScheme scheme = config.scheme_for(module);
  return fmt::format("{} {} {}", scheme.on_disk->name(), scheme.in_memory->name(),
                     scheme.activation_format().to_string());
}

TEST(QuantConfigTest, PlainCheckpointsStayPlain) {
  const QuantConfig config = config_of("");
  EXPECT_EQ(schemes_of(config, "model.layers.0.mlp.up_proj"), "bf16 bf16 bf16");
  EXPECT_EQ(config.description(), "bf16");
}

TEST(QuantConfigTest, QuantisesWhileLoading) {
  const QuantConfig config = config_of("", {.quantization = "fp8", .ignore = {"model.layers.1.mlp.down_proj"}});
  EXPECT_EQ(schemes_of(config, "model.layers.0.mlp.up_proj"), "bf16 fp8_channel f8_e4m3 per token (dynamic)");
  EXPECT_EQ(schemes_of(config, "model.layers.1.mlp.down_proj"), "bf16 bf16 bf16");
  EXPECT_EQ(schemes_of(config, "lm_head"), "bf16 bf16 bf16");
  EXPECT_EQ(config.description(),
            "fp8_channel, quantised while loading, activations dynamic per token; lm_head bf16; 1 entry left bf16");
  const QuantConfig tensor = config_of("", {.quantization = "fp8_tensor", .quantize_lm_head = true});
  EXPECT_EQ(schemes_of(tensor, "lm_head"), "bf16 fp8_tensor f8_e4m3 per token (dynamic)");
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, "", {.quantization = "int4"}), HasSubstr("\"int4\": octet has fp8"));
  EXPECT_THAT(error_of(ErrorCode::kUsage, "", {.ignore = {"gate"}}), HasSubstr("ignore \"gate\""));
}

TEST(QuantConfigTest, ReadsAutoFp8) {
  const QuantConfig fixed = config_of(
      R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head", "model.layers.0.mlp.gate"]})");
  EXPECT_EQ(schemes_of(fixed, "model.layers.0.mlp.up_proj"), "fp8_tensor fp8_tensor f8_e4m3 per tensor");
  EXPECT_EQ(schemes_of(fixed, "model.layers.0.mlp.gate"), "bf16 bf16 bf16");
  EXPECT_EQ(schemes_of(fixed, "lm_head"), "bf16 bf16 bf16");
  EXPECT_EQ(fixed.description(),
            "fp8_tensor, as stored (AutoFP8), activations static per tensor; lm_head bf16; 1 entry left bf16");
  const QuantConfig dynamic =
      config_of(R"({"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": null})",
                {.quantization = "fp8", .quantize_lm_head = true});
  EXPECT_EQ(schemes_of(dynamic, "model.layers.0.mlp.up_proj"), "fp8_tensor fp8_tensor f8_e4m3 per token (dynamic)");
  EXPECT_EQ(schemes_of(dynamic, "lm_head"), "bf16 fp8_channel f8_e4m3 per token (dynamic)");
}

TEST(QuantConfigTest, NamesWhatItDoesNotKnow) {
  for (const std::string_view method : {"mxfp8", "gptq", "awq"}) {
    const std::string text = error_of(ErrorCode::kUnsupported, fmt::format(R"({{"quant_method": "{}"}})", method));
    EXPECT_THAT(text, HasSubstr(fmt::format("quant_method \"{}\" is not supported; octet reads", method)));
  }
  EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 48]})"),
              HasSubstr("weight_block_size = [64,48] is not supported, expected a multiple of 32"));
  for (const std::string_view sides : {"[128]", "128", "[0, 128]", "[128, -128]", "[128, \"128\"]", "[1e9, 128]"}) {
    EXPECT_THAT(
        error_of(ErrorCode::kUnsupported,
                 fmt::format(R"({{"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": {}}})",
                             sides)),
        HasSubstr("weight_block_size"));
  }
  EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                       R"({"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "dynamic"})"),
              HasSubstr("kv_cache_scheme"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": -1})"),
              HasSubstr("activation_scale_ub = -1"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quantization": {"quant_algo": "NVFP4"}})"),
              HasSubstr("hf_quant_config.json: quantization: quant_algo = \"NVFP4\""));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quant_method": "fp8", "activation_scheme": "group"})"),
              HasSubstr("activation_scheme = \"group\""));
  EXPECT_THAT(error_of(ErrorCode::kModel, R"({"quant_method": "fp8"})"), HasSubstr("activation_scheme"));
  EXPECT_THAT(error_of(ErrorCode::kModel, R"({"activation_scheme": "static"})"), HasSubstr("quant_method"));
  EXPECT_THAT(error_of(ErrorCode::kModel, R"(["fp8"])"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(
      error_of(ErrorCode::kModel, R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": [3]})"),
      HasSubstr("ignored_layers: expected module names, found 3"));
}

// As in the configurations of published checkpoints.
TEST(QuantConfigTest, ReadsBlocks) {
  const QuantConfig qwen3 = config_of(
      R"({"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]})");
  EXPECT_EQ(schemes_of(qwen3, "model.layers.0.mlp.up_proj"), "fp8_block fp8_block f8_e4m3 per group of 128 (dynamic)");
  EXPECT_EQ(schemes_of(qwen3, "lm_head"), "bf16 bf16 bf16");
  EXPECT_EQ(qwen3.description(),
            "fp8_block, as stored (FP8 blocks), activations dynamic per group of 128; lm_head bf16");
  const QuantConfig powers = config_of(
      R"({"activation_scheme": "dynamic", "quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [128, 128],
          "modules_to_not_convert": ["gate", "model.layers.0.mlp.up_proj"]})");
  EXPECT_TRUE(powers.scheme_for("model.layers.1.mlp.up_proj").activation.power_of_two);
  EXPECT_EQ(schemes_of(powers, "model.layers.0.mlp.up_proj"), "bf16 bf16 bf16");
}

// MXFP8 in the spellings of its producers, and four bits.
TEST(QuantConfigTest, NamesFormatsOfOtherWidths) {
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quant_method": "mxfp8"})"), HasSubstr("quant_method \"mxfp8\""));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [1, 32]})"),
              HasSubstr("weight_block_size = [1,32] is not supported, expected other blocks than those of MXFP8"));
  for (const std::string_view algorithm : {"MXFP8", "NVFP4", "MIXED_PRECISION", "W4A8_AWQ"}) {
    EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                         fmt::format(R"({{"quant_method": "modelopt", "quant_algo": "{}"}})", algorithm)),
                HasSubstr(fmt::format("quant_algo = \"{}\" is not supported", algorithm)));
  }
  for (const std::string_view format : {"mxfp8-quantized", "nvfp4-pack-quantized", "pack-quantized", "marlin-24"}) {
    EXPECT_THAT(
        error_of(
            ErrorCode::kUnsupported,
            fmt::format(R"({{"quant_method": "compressed-tensors", "format": "{}", "config_groups": {{}}}})", format)),
        HasSubstr(fmt::format("format = \"{}\" is not supported", format)));
  }
}

std::string compressed_tensors(std::string_view weights, std::string_view input, std::string_view rest = "") {
  return fmt::format(
      R"({{"quant_method": "compressed-tensors", "format": "naive-quantized", "quantization_status": "compressed",
      "ignore": ["lm_head", "re:.*self_attn.(q|k)_proj$"], {} "config_groups": {{"group_0": {{"targets": ["Linear"],
      "weights": {{"num_bits": 8, "symmetric": true, {}}}, "input_activations": {}}}}}}})",
      rest, weights, input);
}

TEST(QuantConfigTest, ReadsCompressedTensors) {
  struct Case {
    std::string_view weights, input, expected;
  };
  const Case cases[] = {
      {R"("type": "float", "strategy": "tensor", "dynamic": false)",
       R"({"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": false, "symmetric": true})",
       "fp8_tensor fp8_tensor f8_e4m3 per tensor"},
      {R"("type": "float", "strategy": "channel")", R"({"type": "float", "strategy": "token", "dynamic": true})",
       "fp8_channel fp8_channel f8_e4m3 per token (dynamic)"},
      {R"("type": "float", "strategy": "block", "block_structure": [128, 128])",
       R"({"type": "float", "strategy": "group", "group_size": 128, "dynamic": true})",
       "fp8_block fp8_block f8_e4m3 per group of 128 (dynamic)"},
      {R"("type": "float", "strategy": "channel")", "null", "fp8_channel fp8_channel f32"},
      {R"("type": "int", "group_size": -1, "actorder": "static")",
       R"({"type": "int", "strategy": "token", "dynamic": true})", "int8_channel int8_channel i8 per token (dynamic)"},
      {R"("type": "int", "strategy": "tensor")", R"({"type": "int", "strategy": "tensor", "symmetric": false})",
       "int8_tensor int8_tensor i8 per tensor with zero points"},
  };
  for (const Case& c : cases) {
    const QuantConfig config = config_of(compressed_tensors(c.weights, c.input));
    EXPECT_EQ(schemes_of(config, "model.layers.0.mlp.up_proj"), c.expected);
    EXPECT_EQ(schemes_of(config, "model.layers.0.self_attn.k_proj"), "bf16 bf16 bf16");
  }
  const std::string channel(cases[1].weights), token(cases[1].input);
  const QuantConfig cache = config_of(compressed_tensors(
      channel, token, R"("kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "attn_head"},)"));
  ASSERT_TRUE(cache.kv_cache().has_value());
  EXPECT_TRUE(cache.kv_cache()->per_head);
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, compressed_tensors(R"("type": "float", "strategy": "group")", token)),
              HasSubstr("group_0: weights: group_size = null is not supported"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                       compressed_tensors(R"("type": "int", "strategy": "channel", "actorder": "group")", "null")),
              HasSubstr("weights: actorder = \"group\""));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, compressed_tensors(R"("type": "int", "strategy": "channel")", token)),
              HasSubstr("input_activations: type = \"float\" is not supported"));
}

TEST(QuantConfigTest, BlocksAndGroupsOfOtherSizes) {
  const QuantConfig small =
      config_of(R"({"activation_scheme": "dynamic", "quant_method": "fp8", "weight_block_size": [32, 64]})");
  EXPECT_EQ(schemes_of(small, "a"), "fp8_block fp8_block f8_e4m3 per group of 64 (dynamic)");
  const QuantFormat format = small.scheme_for("a").on_disk->weight_format();
  EXPECT_EQ(format.to_string(), "f8_e4m3 per 32x64 block");
  EXPECT_EQ(small.scheme_for("a").on_disk, small.scheme_for("b").on_disk);
  struct Case {
    std::string_view weights, input, expected;
  };
  for (const Case& c :
       {Case{R"("type": "float", "strategy": "block", "block_structure": [64, 32])",
             R"({"type": "float", "strategy": "group", "group_size": 32, "dynamic": true})",
             "fp8_block fp8_block f8_e4m3 per group of 32 (dynamic)"},
        Case{R"("type": "float", "strategy": "block", "block_structure": "64x32")", "null", "fp8_block fp8_block f32"},
        Case{R"("type": "float", "group_size": 64)", R"({"type": "float", "strategy": "token", "dynamic": true})",
             "fp8_group fp8_group f8_e4m3 per token (dynamic)"},
        Case{R"("type": "int", "strategy": "group", "group_size": 128)", "null", "int8_group int8_group f32"}}) {
    EXPECT_EQ(schemes_of(config_of(compressed_tensors(c.weights, c.input)), "a"), c.expected);
  }
  for (const std::string_view sides :
       {R"("128")", R"("x128")", R"("128x")", R"("128x12y")", "[128]", "[128, 0]", "null"}) {
    EXPECT_THAT(
        error_of(ErrorCode::kUnsupported,
                 compressed_tensors(
                     fmt::format(R"("type": "float", "strategy": "block", "block_structure": {})", sides), "null")),
        HasSubstr("weights: block_structure"));
  }
  EXPECT_THAT(
      error_of(ErrorCode::kUnsupported,
               compressed_tensors(R"("type": "float", "group_size": 64)",
                                  R"({"type": "float", "strategy": "group", "group_size": 128, "dynamic": true})")),
      HasSubstr("group_size = 128 is not supported, expected 64, as the weights"));
}

TEST(QuantConfigTest, ReadsFbgemmAndModelOpt) {
  const QuantConfig fbgemm = config_of(
      R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["model.layers.0.mlp.up_proj"]})");
  EXPECT_EQ(schemes_of(fbgemm, "model.layers.1.mlp.up_proj"),
            "fp8_channel fp8_channel f8_e4m3 per token (dynamic), amax at most 1200");
  const QuantConfig old = config_of(
      R"({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head", "*.layers.1.*"]}})");
  EXPECT_EQ(schemes_of(old, "model.layers.0.mlp.up_proj"), "fp8_tensor fp8_tensor f8_e4m3 per tensor");
  EXPECT_EQ(schemes_of(old, "model.layers.1.mlp.up_proj"), "bf16 bf16 bf16");
  EXPECT_TRUE(old.kv_cache().has_value());
  const QuantConfig blocks = config_of(R"({"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"})");
  EXPECT_EQ(schemes_of(blocks, "a"), "fp8_block fp8_block f8_e4m3 per group of 128 (dynamic)");
}

std::string quark(std::string_view weight, std::string_view input, std::string_view rest = "") {
  return fmt::format(
      R"({{"quant_method": "quark", "quant_mode": "eager_mode", "algo_config": null, "exclude": ["lm_head"],
      "global_quant_config": {{"bias": null, "input_tensors": {}, "output_tensors": null, "weight": {}}},
      "layer_type_quant_config": {{}}, {} "export": {{"pack_method": "reorder", "weight_format": "real_quantized"}}}})",
      input, weight, rest);
}

TEST(QuantConfigTest, ReadsQuark) {
  constexpr std::string_view kTensor = R"({"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": false})";
  constexpr std::string_view kChannel = R"({"dtype": "fp8_e4m3", "qscheme": "per_channel", "ch_axis": 0})";
  constexpr std::string_view kToken =
      R"({"dtype": "fp8_e4m3", "qscheme": "per_channel", "ch_axis": 1, "is_dynamic": true})";
  struct Case {
    std::string_view weight, input, expected;
  };
  for (const Case& c : {Case{kTensor, kTensor, "fp8_tensor fp8_tensor f8_e4m3 per tensor"},
                        Case{kChannel, kToken, "fp8_channel fp8_channel f8_e4m3 per token (dynamic)"},
                        Case{kChannel, "null", "fp8_channel fp8_channel f32"},
                        Case{R"({"dtype": "fp8_e4m3", "qscheme": "per_block", "block_size": [128, 128]})",
                             R"({"dtype": "fp8_e4m3", "qscheme": "per_group", "group_size": 128, "is_dynamic": true})",
                             "fp8_block fp8_block f8_e4m3 per group of 128 (dynamic)"},
                        Case{R"({"dtype": "int8", "qscheme": "per_channel", "symmetric": true})",
                             R"({"dtype": "int8", "qscheme": "per_tensor", "symmetric": false})",
                             "int8_channel int8_channel i8 per tensor with zero points"}}) {
    const QuantConfig config = config_of(quark(c.weight, c.input));
    EXPECT_EQ(schemes_of(config, "model.layers.0.mlp.up_proj"), c.expected);
    EXPECT_EQ(schemes_of(config, "lm_head"), "bf16 bf16 bf16");
    EXPECT_FALSE(config.kv_cache());
  }
  const QuantConfig cache = config_of(quark(
      kTensor, kTensor,
      fmt::format(R"("layer_quant_config": {{"*k_proj": {{"weight": {0}, "input_tensors": {0}, "output_tensors": {0}}},
                                             "*.layers.1.mlp.*": {{"weight": null}},
                                             "*o_proj": {{"weight": {1}, "input_tensors": {2}}}}},)",
                  kTensor, kChannel, kToken)));
  ASSERT_TRUE(cache.kv_cache());
  EXPECT_FALSE(cache.kv_cache()->by_default);
  EXPECT_EQ(schemes_of(cache, "model.layers.0.self_attn.k_proj"), "fp8_tensor fp8_tensor f8_e4m3 per tensor");
  EXPECT_EQ(schemes_of(cache, "model.layers.0.self_attn.o_proj"),
            "fp8_channel fp8_channel f8_e4m3 per token (dynamic)");
  EXPECT_EQ(schemes_of(cache, "model.layers.1.mlp.up_proj"), "bf16 bf16 bf16");
}

TEST(QuantConfigTest, NamesWhatItDoesNotKnowOfQuark) {
  constexpr std::string_view kTensor = R"({"dtype": "fp8_e4m3", "qscheme": "per_tensor"})";
  const auto error = [](std::string_view weight, std::string_view input, std::string_view rest = "") {
    return error_of(ErrorCode::kUnsupported, quark(weight, input, rest));
  };
  EXPECT_THAT(error(R"({"dtype": "mxfp4", "qscheme": "per_group"})", "null"),
              HasSubstr("global_quant_config: weight: dtype = \"mxfp4\" is not supported"));
  EXPECT_THAT(error(R"({"dtype": "fp8_e4m3", "qscheme": "per_group"})", "null"), HasSubstr("qscheme = \"per_group\""));
  EXPECT_THAT(error(R"({"dtype": "fp8_e4m3", "qscheme": "per_channel", "ch_axis": 1})", "null"),
              HasSubstr("ch_axis = 1"));
  EXPECT_THAT(error(R"({"dtype": "int8", "qscheme": "per_tensor", "symmetric": false})", "null"),
              HasSubstr("weight: symmetric = false"));
  EXPECT_THAT(error(kTensor, R"({"dtype": "int8", "qscheme": "per_tensor"})"),
              HasSubstr("input_tensors: dtype = \"int8\""));
  EXPECT_THAT(error(kTensor, kTensor, R"("softmax_quant_spec": {"dtype": "fp8_e4m3"},)"),
              HasSubstr("softmax_quant_spec"));
  EXPECT_THAT(error(kTensor, kTensor,
                    fmt::format(R"("layer_quant_config": {{"*o_proj": {{"output_tensors": {}}}}},)", kTensor)),
              HasSubstr("layer_quant_config: *o_proj: output_tensors"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quant_method": "quark", "algo_config": [{"name": "rotation"}]})"),
              HasSubstr("algo_config"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quant_method": "quark"})"),
              HasSubstr("global_quant_config = null"));
}

TEST(QuantConfigTest, RefusesContradictions) {
  constexpr std::string_view kStored = R"({"quant_method": "fp8", "activation_scheme": "dynamic"})";
  EXPECT_THAT(error_of(ErrorCode::kModel, kStored, {.quantization = "fp8_channel"}),
              HasSubstr("already quantised, as fp8_tensor"));
  EXPECT_THAT(error_of(ErrorCode::kModel, kStored, {.ignore = {"gate"}}), HasSubstr("ignore \"gate\""));
}

TEST(ModulePatternTest, Matches) {
  struct Case {
    std::string_view entry, module;
    bool expected;
  };
  const Case cases[] = {
      {"lm_head", "lm_head", true},
      {"lm_head", "my_lm_head", false},
      {"gate", "model.layers.0.mlp.gate", true},
      {"gate", "model.layers.0.mlp.gate_proj", false},
      {"mlp.gate", "model.layers.0.mlp.gate", true},
      {"model.layers.1", "model.layers.11", false},
      {"model.layers.0.self_attn.qkv_proj", "model.layers.0.self_attn.k_proj", true},
      {"model.layers.0.self_attn.qkv_proj", "model.layers.1.self_attn.k_proj", false},
      {"gate_up_proj", "model.layers.3.mlp.up_proj", true},
      {"re:.*lm_head", "lm_head", true},
      {"re:.*lm_head", "model.lm_head.x", true},
      {"re:gate$", "model.layers.0.mlp.gate", true},
      {"re:gate$", "model.layers.0.mlp.gate_proj", false},
      {"re:.*gate", "model.layers.0.mlp.gate_proj", true},
      {R"(re:^model\.layers\.1\..*_proj$)", "model.layers.1.mlp.up_proj", true},
      {R"(re:^model\.layers\.1\..*_proj$)", "model.layers.11.mlp.up_proj", false},
      {"re:^layers", "model.layers.0", false},
      {"re:l.yers", "model.layers.0", true},
      {R"(re:l\.yers)", "model.layers.0", false},
      {"re:aab", "aaab", true},
      {"re:.*self_attn.(q|k|v)_proj$", "model.layers.0.self_attn.v_proj", true},
      {"re:.*self_attn.(q|k|v)_proj$", "model.layers.0.self_attn.o_proj", false},
      {R"(re:layers\.[0-9]\.)", "model.layers.12.mlp", false},
      {R"(re:layers\.\d{1,2}\.)", "model.layers.12.mlp", true},
      {"re:layers.(?:1?[0-5]|20)[.]", "model.layers.16.mlp", false},
      {"re:a+b?c*$", "xaac", true},
      {"re:[^a-c]$", "b", false},
      {"re:^a.*b.*c$", "a-b-b-c", true},
      {"re:^a.*b.*c$", "a-b-b-d", false},
  };
  for (const Case& c : cases)
    EXPECT_EQ(ModulePattern(c.entry).matches(c.module), c.expected) << c.entry << " " << c.module;
}

TEST(ModulePatternTest, DialectsReadEntriesDifferently) {
  using Dialect = ModulePattern::Dialect;
  EXPECT_TRUE(ModulePattern("re:mlp", Dialect::kSearch).matches("model.mlp.up_proj"));
  EXPECT_FALSE(ModulePattern("re:mlp", Dialect::kMatch).matches("model.mlp.up_proj"));
  EXPECT_TRUE(ModulePattern("re:model.mlp", Dialect::kMatch).matches("model.mlp.up_proj"));
  EXPECT_TRUE(ModulePattern("*.mlp.[gu]*", Dialect::kWildcard).matches("model.mlp.up_proj"));
  EXPECT_FALSE(ModulePattern("*.mlp.[!gu]*", Dialect::kWildcard).matches("model.mlp.up_proj"));
  EXPECT_TRUE(ModulePattern("lm_head.*", Dialect::kWildcard).matches("lm_head"));
  EXPECT_TRUE(ModulePattern("layers.1", Dialect::kWildcard).matches("model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(ModulePattern("layers.1", Dialect::kWildcard).matches("model.layers.11.mlp.up_proj"));
}

TEST(ModulePatternTest, NamesUnknownForms) {
  for (const std::string_view entry : {"re:(?=a)", "re:(?i)a", R"(re:\1)", "re:(a", "re:a)", "re:[a", "re:*a", "re:a**",
                                       "re:a{2", "re:a{3,2}", R"(re:a\)"}) {
    try {
      ModulePattern pattern(entry);
      ADD_FAILURE() << entry;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_THAT(error.what(), HasSubstr(fmt::format("ignore entry \"{}\"", entry)));
    }
  }
  EXPECT_THROW(ModulePattern(""), Error);
  EXPECT_THROW(ModulePattern("re:"), Error);
}

// An expression that takes a backtracking engine exponential time.
TEST(ModulePatternTest, MatchingCannotBeMadeSlow) {
  std::string expression = "re:^";
  for (int i = 0; i < 100; ++i) expression += ".*a";
  EXPECT_FALSE(ModulePattern(expression + "b$").matches(std::string(3000, 'a')));
}

}  // namespace
}  // namespace octet
