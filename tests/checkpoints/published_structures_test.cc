// A tiny twin of every structure that published 8-bit checkpoints have: each linear's weight is bit for bit what its
// codes and scales stand for, its input is rounded as the file says, and the whole model, on one rank and on two,
// answers like the model with those real numbers as weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/quant/schemes.h"
#include "tests/checkpoints/tiny_twin.h"

namespace octet {
namespace {

constexpr Tiling kTensor{};
constexpr Tiling kChannel{.rows = 1};
constexpr Tiling kBlock{.rows = 128, .columns = 128};
constexpr QuantFormat kWeightOnly{};

struct Structure {
  std::string name;
  std::string config;  // quantization_config
  QuantFormat activation;
  std::function<void(TinyTwin& twin, const std::string& module)> add;
  std::vector<std::string> plain = {};  // modules that end in one of these are not quantised
  std::function<void(TinyLlama&)> changes = {};

  friend void PrintTo(const Structure& structure, std::ostream* to) { *to << structure.name; }
};

// Blocks with edges: 144 and 160 channels, of which two ranks have 72 and 80.
void with_blocks(TinyLlama& llama) {
  llama.hidden = 144;
  llama.intermediate = 160;
  llama.heads = 2;
  llama.kv_heads = 2;
  llama.head_dim = 72;
  llama.layers = 1;
}

float input_scale(const std::string& module, float largest_code) {
  return (module.ends_with("down_proj") ? 40.0f : 8.0f) / largest_code;
}

std::string groups(std::string_view weights, std::string_view input, std::string_view rest = "") {
  return fmt::format(R"({{"quant_method": "compressed-tensors", "format": "naive-quantized",
    "quantization_status": "compressed", "global_compression_ratio": null, "ignore": ["lm_head"], {} "config_groups":
    {{"group_0": {{"targets": ["Linear"], "weights": {}, "input_activations": {}, "output_activations": null}}}}}})",
                     rest, weights, input);
}

constexpr std::string_view kF8Arguments = R"({"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": false})";
constexpr std::string_view kF8ChannelArguments = R"({"num_bits": 8, "type": "float", "strategy": "channel"})";
constexpr std::string_view kF8TokenArguments =
    R"({"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true})";
constexpr std::string_view kI8ChannelArguments = R"({"num_bits": 8, "type": "int", "strategy": "channel"})";

QuantFormat with(QuantFormat format, const std::function<void(QuantFormat&)>& change) {
  change(format);
  return format;
}

// AutoFP8 and what shares its quant_method.
std::vector<Structure> of_fp8() {
  const auto tensor = [](Shape shape, std::string_view scale, std::string_view input) {
    return [=](TinyTwin& twin, const std::string& module) {
      twin.add(module, kTensor, std::string(scale), shape);
      if (!input.empty()) twin.add_scalar(module + "." + std::string(input), input_scale(module, 448), shape);
    };
  };
  const auto blocks = [](Tiling tiling, std::string_view dtype) {
    return [=](TinyTwin& twin, const std::string& module) {
      twin.add(module, tiling, "weight_scale_inv");
      if (!dtype.empty()) twin.checkpoint().call_dtype(module + ".weight_scale_inv", std::string(dtype));
    };
  };
  Tiling exponents = kBlock;
  exponents.scale_dtype = DType::kU8;
  const QuantFormat powers = with(kF8DynamicGroup, [](QuantFormat& f) { f.power_of_two = true; });
  return {
      {"autofp8_static", R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]})",
       kF8StaticTensor, tensor({}, "weight_scale", "input_scale")},
      {"autofp8_static_kv",
       R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"], "kv_cache_scheme": "static"})",
       kF8StaticTensor,
       [=](TinyTwin& twin, const std::string& module) {
         tensor({}, "weight_scale", "input_scale")(twin, module);
         if (module.ends_with("k_proj")) twin.add_scalar(module.substr(0, module.size() - 6) + "kv_scale", 0.0625f);
       }},
      {"autofp8_dynamic", R"({"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]})",
       kF8DynamicToken, tensor({}, "weight_scale", "")},
      {"autofp8_dynamic_with_unused_input_scales", R"({"quant_method": "fp8", "activation_scheme": "dynamic"})",
       kF8DynamicToken, tensor(Shape{1}, "weight_scale", "input_scale")},
      {"fp8_names_left_out",
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head",
           "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
           "layers.1.mlp.gate_up_proj"]})",
       kF8DynamicToken,
       tensor({}, "weight_scale", ""),
       {"0.self_attn.q_proj", "0.self_attn.k_proj", "0.self_attn.v_proj", "1.mlp.gate_proj", "1.mlp.up_proj"}},
      {"fp8_abbreviated_names",
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "modules_to_not_convert": ["o_proj", "lm_head", "norm"]})",
       kF8DynamicToken,
       tensor({}, "weight_scale", ""),
       {"o_proj"}},
      {"fp8_whose_config_names_nothing_plain",  // the files' dtypes say it
       R"({"quant_method": "fp8", "activation_scheme": "dynamic"})",
       kF8DynamicToken,
       tensor({}, "weight_scale", ""),
       {"o_proj"}},
      {"mistral3",  // as transformers converts it
       R"({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null, "modules_to_not_convert": ["lm_head"]})",
       kF8StaticTensor, tensor({}, "weight_scale_inv", "activation_scale")},
      {"mistral_names", R"({"quant_method": "fp8", "activation_scheme": "static"})", kF8StaticTensor,
       tensor({}, "qscale_weight", "qscale_act")},
      {"deepseek_blocks",
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]})",
       kF8DynamicGroup,
       blocks(kBlock, ""),
       {},
       with_blocks},
      {"deepseek_blocks_powers_of_two",
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]})",
       powers,
       blocks(exponents, "F8_E8M0"),
       {},
       with_blocks},
      {"transformers_blocks",  // FineGrainedFP8Config of transformers 5.23
       R"({"activation_scheme": "dynamic", "dequantize": false, "expert_dtype": "fp8", "modules_to_convert": null,
           "modules_to_not_convert": null, "quant_method": "fp8", "scale_fmt": "float", "weight_block_size": [128, 128]})",
       kF8DynamicGroup,
       blocks(kBlock, ""),
       {},
       with_blocks},
      {"deepseek_blocks_some_plain",
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
           "modules_to_not_convert": ["model.layers.0.self_attn.o_proj", "lm_head"]})",
       kF8DynamicGroup,
       blocks(kBlock, ""),
       {"o_proj"},
       with_blocks},
      {"blocks_of_32_by_64",
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 64]})",
       with(kF8DynamicGroup, [](QuantFormat& f) { f.group_cols = 64; }),
       blocks({.rows = 32, .columns = 64}, ""),
       {},
       with_blocks},
      {"fbgemm",
       R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert":
           ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
            "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj",
            "model.layers.1.self_attn.v_proj", "model.layers.1.self_attn.o_proj", "lm_head"]})",
       with(kF8DynamicToken, [](QuantFormat& f) { f.amax_cap = 1200.0f; }),
       [](TinyTwin& twin, const std::string& module) { twin.add(module, kChannel, "weight_scale"); },
       {"q_proj", "k_proj", "v_proj", "o_proj"}},
  };
}

std::vector<Structure> of_compressed_tensors() {
  const auto add = [](Tiling tiling, Shape input_shape, int32_t zero_point = 0) {
    return [=](TinyTwin& twin, const std::string& module) {
      Tiling own = tiling;
      own.scale_dtype = DType::kBF16;
      const bool one = own.rows == 0;
      one ? twin.add(module, own, "weight_scale", Shape{1}) : twin.add(module, own, "weight_scale");
      if (input_shape.rank() == 0) return;
      const float largest_code = own.dtype == DType::kI8 ? 127.0f : 448.0f;
      twin.add_scalar(module + ".input_scale", input_scale(module, largest_code), input_shape, DType::kBF16);
      if (zero_point != 0)
        twin.add_scalar(module + ".input_zero_point", static_cast<float>(zero_point), Shape{1}, DType::kI8);
    };
  };
  constexpr Tiling kI8Tensor{.dtype = DType::kI8}, kI8PerChannel{.dtype = DType::kI8, .rows = 1};
  constexpr Shape kNone{};
  const auto asymmetric = [](QuantFormat& f) { f.zero_point = true; };
  const auto i8 = [](std::string_view rest) { return fmt::format(R"({{"num_bits": 8, "type": "int", {}}})", rest); };
  return {
      {"ct_static", groups(kF8Arguments, kF8Arguments), kF8StaticTensor, add(kTensor, Shape{1})},
      {"ct_channel_token", groups(kF8ChannelArguments, kF8TokenArguments), kF8DynamicToken, add(kChannel, kNone)},
      {"ct_skip_qkv",
       groups(kF8Arguments, kF8Arguments, R"("sparsity_config": {"format": "dense"},)")
           .replace(
               groups(kF8Arguments, kF8Arguments, R"("sparsity_config": {"format": "dense"},)").find(R"(["lm_head"])"),
               11, R"(["lm_head", "re:.*self_attn.(q|k|v)_proj$"])"),
       kF8StaticTensor,
       add(kTensor, Shape{1}),
       {"q_proj", "k_proj", "v_proj"}},
      {"ct_blocks",
       groups(R"({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "128x128"})",
              R"({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 128, "dynamic": true})"),
       kF8DynamicGroup,
       add(kBlock, kNone),
       {},
       with_blocks},
      {"ct_w8a16", groups(kF8ChannelArguments, "null"), kWeightOnly, add(kChannel, kNone)},
      {"ct_w8a16_tensor", groups(kF8Arguments, "null"), kWeightOnly, add(kTensor, kNone)},
      {"ct_groups",
       groups(R"({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32})", kF8TokenArguments),
       kF8DynamicToken, add({.rows = 1, .columns = 32}, kNone)},
      {"ct_groups_of_integers",
       groups(R"({"num_bits": 8, "type": "int", "strategy": "group", "group_size": 32})", "null"), kWeightOnly,
       add({.dtype = DType::kI8, .rows = 1, .columns = 32}, kNone)},
      {"int8_dynamic", groups(kI8ChannelArguments, i8(R"("strategy": "token", "dynamic": true)")), kI8DynamicToken,
       add(kI8PerChannel, kNone)},
      {"int8_dynamic_zero_points",
       groups(kI8ChannelArguments, i8(R"("strategy": "token", "dynamic": true, "symmetric": false)")),
       with(kI8DynamicToken, asymmetric), add(kI8PerChannel, kNone)},
      {"int8_static", groups(i8(R"("strategy": "tensor")"), i8(R"("strategy": "tensor")")), kI8StaticTensor,
       add(kI8Tensor, Shape{1})},
      {"int8_static_zero_points", groups(kI8ChannelArguments, i8(R"("strategy": "tensor", "symmetric": false)")),
       with(kI8StaticTensor, asymmetric), add(kI8PerChannel, Shape{1}, -12)},
  };
}

std::vector<Structure> of_others() {
  const auto fixed = [](TinyTwin& twin, const std::string& module) {
    twin.add(module, kTensor, "weight_scale", Shape{});
    twin.add_scalar(module + ".input_scale", input_scale(module, 448));
  };
  return {
      {"modelopt",
       R"({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head", "model.embed_tokens"], "producer":
           {"name": "modelopt", "version": "0.47.0"}, "kv_cache_scheme": {"dynamic": false, "num_bits": 8, "type": "float"}})",
       kF8StaticTensor,
       [=](TinyTwin& twin, const std::string& module) {
         fixed(twin, module);
         if (module.ends_with("k_proj")) twin.add_scalar(module + ".k_scale", 0.05f);
         if (module.ends_with("v_proj")) twin.add_scalar(module + ".v_scale", 0.02f);
       }},
      {"modelopt_without_method",
       R"({"quant_algo": "FP8", "kv_cache_scheme": "FP8", "producer": {"name": "modelopt", "version": "0.31.0"}})",
       kF8StaticTensor, fixed},
      {"modelopt_wildcards",
       R"({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head", "*.self_attn.[qkv]_proj", "model.layers.1.mlp*"]})",
       kF8StaticTensor,
       fixed,
       {"q_proj", "k_proj", "v_proj", "1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj"}},
      {"modelopt_channel_token", R"({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"})",
       kF8DynamicToken,
       [](TinyTwin& twin, const std::string& module) {
         twin.add(module, kChannel, "weight_scale", Shape{twin.llama().weight(module).shape[0]});
       }},
      {"modelopt_blocks",
       R"({"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"})",
       kF8DynamicGroup,
       [](TinyTwin& twin, const std::string& module) {
         const Shape tiles = quantise(twin.llama().weight(module), kBlock).tiles;
         twin.add(module, kBlock, "weight_scale", Shape{tiles[0], 1, tiles[1], 1});
       },
       {},
       with_blocks},
      {"modelopt_one_block", R"({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"})", kF8DynamicGroup,
       [](TinyTwin& twin, const std::string& module) { twin.add(module, kBlock, "weight_scale", Shape{}); }},
      {"quark",
       R"({"quant_method": "quark", "exclude": ["lm_head"], "export": {"kv_cache_group": ["*k_proj", "*v_proj"],
           "pack_method": "reorder"}, "layer_quant_config": {}, "global_quant_config": {"bias": null, "output_tensors": null,
           "weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": false},
           "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": false}}})",
       kF8StaticTensor,
       [=](TinyTwin& twin, const std::string& module) {
         fixed(twin, module);
         if (module.ends_with("k_proj") || module.ends_with("v_proj")) twin.add_scalar(module + ".output_scale", 0.05f);
       }},
      {"quark_channel_token",
       R"({"quant_method": "quark", "exclude": ["lm_head"], "global_quant_config": {
           "weight": {"dtype": "fp8_e4m3", "qscheme": "per_channel", "ch_axis": 0},
           "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_token", "is_dynamic": true}}})",
       kF8DynamicToken,
       [](TinyTwin& twin, const std::string& module) {
         twin.add(module, kChannel, "weight_scale", Shape{twin.llama().weight(module).shape[0]});
       }},
  };
}

std::vector<Structure> structures() {
  std::vector<Structure> all = of_fp8();
  for (const auto& more : {of_compressed_tensors(), of_others()}) all.insert(all.end(), more.begin(), more.end());
  return all;
}

class Published : public testing::TestWithParam<Structure> {
 protected:
  Published() : twin_(GetParam().changes) {
    twin_.llama().config["quantization_config"] = parse_json(GetParam().config, "test");
    for (const std::string& module : twin_.llama().linears()) {
      const auto ends = [&](const std::string& end) { return module.ends_with(end); };
      if (std::none_of(GetParam().plain.begin(), GetParam().plain.end(), ends)) GetParam().add(twin_, module);
    }
    twin_.write(folder_);
    twin_.write_real(real_folder_);
  }

  TinyTwin twin_;
  TestFolder folder_, real_folder_;
};
INSTANTIATE_TEST_SUITE_P(Structures, Published, testing::ValuesIn(structures()),
                         [](const auto& test) { return test.param.name; });

TEST_P(Published, WeightsAreWhatTheirCodesStandFor) {
  Loader loader(folder_.path(), {.quantization_config = GetParam().config});
  ThreadPool threads(1);
  for (const std::string& module : twin_.llama().linears()) {
    const Matrix& matrix = twin_.llama().weight(module);
    const LoadedLinear linear = loader.root().linear({.parts = {whole(module, matrix.shape[0])}, .k = matrix.shape[1]});
    const auto real = twin_.real().find(module);
    EXPECT_EQ(linear.weight.format.quantized(), real != twin_.real().end()) << module;
    const bool rounded = real != twin_.real().end() && GetParam().activation.quantized();
    EXPECT_EQ(linear.activation.quantized() ? linear.activation : QuantFormat{},
              rounded ? GetParam().activation : QuantFormat{})
        << module;
    std::vector<float> found(matrix.values.size());
    const Tensor out(reinterpret_cast<std::byte*>(found.data()), DType::kF32, matrix.shape);
    fp8_channel_scheme().dequantize(linear.weight, out, threads);
    EXPECT_EQ(found, real != twin_.real().end() ? real->second : matrix.values) << module;
  }
}

double relative_error(const TinyAnswers& found, const TinyAnswers& expected) {
  double difference = 0.0, sum = 0.0;
  EXPECT_EQ(found.logits.size(), expected.logits.size());
  for (size_t i = 0; i < std::min(found.logits.size(), expected.logits.size()); ++i) {
    difference += std::pow(static_cast<double>(found.logits[i]) - expected.logits[i], 2);
    sum += std::pow(static_cast<double>(expected.logits[i]), 2);
  }
  return std::sqrt(difference / sum);
}

TEST_P(Published, TheModelAnswersLikeItsRealNumbers) {
  EngineOptions options = tiny_options(folder_);
  options.kv_cache_dtype = "f32";
  EngineOptions real = tiny_options(real_folder_);
  const TinyAnswers expected = answers_of(real), found = answers_of(options);
  const double error = relative_error(found, expected);
  const bool rounded = GetParam().activation.quantized();
  EXPECT_LT(error, rounded ? 0.2 : 1e-5);
  EXPECT_GT(error, rounded ? 1e-4 : -1.0);
  options.tensor_parallel_size = 2;
  EXPECT_LT(relative_error(answers_of(options), found), rounded ? 0.2 : 1e-5);
}

// Whatever the file says of the KV cache.
TEST_P(Published, TheModelRunsAsItIs) {
  const TinyAnswers expected = answers_of(tiny_options(real_folder_));
  EXPECT_LT(relative_error(answers_of(tiny_options(folder_)), expected), 0.25);
}

}  // namespace
}  // namespace octet
