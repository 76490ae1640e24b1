// A tiny twin of every structure that published 8-bit mixtures of experts have: the whole model, on one rank, on ranks
// that share every expert's channels and on ranks with whole experts, answers like the model with the real numbers that
// its codes stand for; and what is wrong with a mixture is said by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "octet/engine/client_for_test.h"
#include "octet/quantizer/quantize.h"
#include "tests/checkpoints/tiny_twin.h"

namespace octet {
namespace {

using testing::HasSubstr;
using Mixture = TinyLlama::Mixture;

constexpr Tiling kTensor{};
constexpr Tiling kChannel{.rows = 1};
constexpr Tiling kI8PerChannel{.dtype = DType::kI8, .rows = 1};
constexpr Tiling kBlock{.rows = 128, .columns = 128};

struct Structure {
  std::string name;
  Mixture mixture;
  std::string config;  // quantization_config
  bool rounds_inputs;
  std::function<void(TinyTwin& twin, const std::string& module)> add;
  std::function<void(TinyLlama&)> changes = {};
  std::string plain = {};  // modules with this in their name are not quantised

  friend void PrintTo(const Structure& structure, std::ostream* to) { *to << structure.name; }
};

// Every expert's own.
float input_scale(const std::string& module) {
  const bool inner = module.ends_with("down_proj") || module.ends_with(".w2");
  const size_t at = module.find(".experts.");
  const float expert = at == std::string::npos ? 0.0f : static_cast<float>(module[at + 9] - '0');
  return (inner ? 60.0f : 8.0f) * (1.0f + expert / 8.0f) / 448.0f;
}

std::function<void(TinyTwin&, const std::string&)> scalars(Shape shape, bool with_input, DType dtype = DType::kF32) {
  return [=](TinyTwin& twin, const std::string& module) {
    Tiling tiling = kTensor;
    tiling.scale_dtype = dtype;
    twin.add(module, tiling, "weight_scale", shape);
    if (with_input) twin.add_scalar(module + ".input_scale", input_scale(module), shape, dtype);
  };
}

std::function<void(TinyTwin&, const std::string&)> tiles(Tiling tiling, const std::string& name) {
  return [=](TinyTwin& twin, const std::string& module) { twin.add(module, tiling, name); };
}

// Edges within blocks: 144 and 160 channels, of which two ranks have 72 and 80.
void with_blocks(TinyLlama& llama) {
  llama.hidden = 144;
  llama.intermediate = 160;
  llama.shared_intermediate = 160;
  llama.heads = llama.kv_heads = 2;
  llama.head_dim = 72;
  llama.layers = 1;
  llama.experts = 4;
}

std::string compressed(std::string_view ignore, std::string_view weights, std::string_view input) {
  return fmt::format(R"({{"quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status":
    "compressed", "ignore": {}, "config_groups": {{"group_0": {{"targets": ["Linear"], "weights": {},
    "input_activations": {}, "output_activations": null}}}}}})",
                     ignore, weights, input);
}

constexpr std::string_view kF8Static = R"({"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": false})";
constexpr std::string_view kF8PerChannel = R"({"num_bits": 8, "type": "float", "strategy": "channel"})";
constexpr std::string_view kF8Token = R"({"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true})";
constexpr std::string_view kMixtralIgnore = R"(["lm_head", "re:.*block_sparse_moe.gate"])";

std::vector<Structure> structures() {
  return {
      {"mixtral_autofp8_static", Mixture::kMixtral,
       R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head",
           "model.layers.0.block_sparse_moe.gate", "model.layers.1.block_sparse_moe.gate"]})",
       true, scalars({}, true)},
      {"mixtral_autofp8_dynamic", Mixture::kMixtral,
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head", "re:.*gate"]})", true,
       scalars({}, false)},
      {"mixtral_ct_channel_token", Mixture::kMixtral, compressed(kMixtralIgnore, kF8PerChannel, kF8Token), true,
       tiles(kChannel, "weight_scale")},
      {"mixtral_ct_static", Mixture::kMixtral, compressed(kMixtralIgnore, kF8Static, kF8Static), true,
       scalars(Shape{1}, true, DType::kBF16)},
      {"mixtral_ct_weights_only", Mixture::kMixtral, compressed(kMixtralIgnore, kF8PerChannel, "null"), false,
       tiles(kChannel, "weight_scale")},
      {"mixtral_ct_tensor_weights_only", Mixture::kMixtral, compressed(kMixtralIgnore, kF8Static, "null"), false,
       scalars(Shape{1}, false)},
      {"mixtral_int8", Mixture::kMixtral,
       compressed(kMixtralIgnore, R"({"num_bits": 8, "type": "int", "strategy": "channel"})",
                  R"({"num_bits": 8, "type": "int", "strategy": "token", "dynamic": true})"),
       true, tiles(kI8PerChannel, "weight_scale")},
      {"mixtral_experts_only",
       Mixture::kMixtral,
       compressed(R"(["lm_head", "re:.*self_attn.*", "re:.*gate$"])", kF8PerChannel, kF8Token),
       true,
       tiles(kChannel, "weight_scale"),
       {},
       "self_attn"},
      {"mixtral_modelopt", Mixture::kMixtral,
       R"({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head", "*block_sparse_moe.gate"], "producer":
           {"name": "modelopt", "version": "0.47.0"}})",
       true, scalars({}, true)},
      {"mixtral_quark", Mixture::kMixtral,
       R"({"quant_method": "quark", "exclude": ["lm_head", "*.gate"], "global_quant_config": {
           "weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": false},
           "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": false}}})",
       true, scalars({}, true)},
      {"qwen2_moe_ct_static", Mixture::kQwen2Moe,
       compressed(R"(["lm_head", "re:.*mlp.gate$", "re:.*mlp.shared_expert_gate$"])", kF8Static, kF8Static), true,
       scalars(Shape{1}, true)},
      {"qwen2_moe_weights_only", Mixture::kQwen2Moe,
       compressed(R"(["lm_head", "re:.*mlp.gate$", "re:.*mlp.shared_expert_gate$"])", kF8PerChannel, "null"), false,
       tiles(kChannel, "weight_scale")},
      {"qwen3_moe_blocks", Mixture::kQwen3Moe,
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128],
           "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate", "model.layers.0.input_layernorm"]})",
       true, tiles(kBlock, "weight_scale_inv"), with_blocks},
      {"qwen3_moe_blocks_whose_router_nobody_names", Mixture::kQwen3Moe,
       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})", true,
       tiles(kBlock, "weight_scale_inv"), with_blocks},
      {"qwen3_moe_ct_block_weights_only", Mixture::kQwen3Moe,
       compressed(R"(["lm_head", "re:.*mlp.gate$"])",
                  R"({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]})", "null"),
       false, tiles(kBlock, "weight_scale"), with_blocks},
  };
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

class PublishedMixture : public testing::TestWithParam<Structure> {
 protected:
  PublishedMixture()
      : twin_([](TinyLlama& llama) {
          llama.mixture = GetParam().mixture;
          if (GetParam().changes) GetParam().changes(llama);
          // Where inputs are rounded, a token near the border between two experts would go to the other one, and its
          // answer jump. There every token has all experts, by weights that are not far apart.
          if (!GetParam().rounds_inputs) return;
          llama.experts_per_token = llama.experts;
          llama.router_size = 0.05f;
        }) {
    twin_.llama().config["quantization_config"] = parse_json(GetParam().config, "test");
    for (const std::string& module : twin_.llama().linears()) {
      const bool plain = !GetParam().plain.empty() && module.find(GetParam().plain) != std::string::npos;
      if (!plain) GetParam().add(twin_, module);
    }
    twin_.write(folder_);
    twin_.write_real(real_folder_);
  }

  TinyTwin twin_;
  TestFolder folder_, real_folder_;
};
INSTANTIATE_TEST_SUITE_P(Structures, PublishedMixture, testing::ValuesIn(structures()),
                         [](const auto& test) { return test.param.name; });

TEST_P(PublishedMixture, TheModelAnswersLikeItsRealNumbers) {
  EngineOptions options = tiny_options(folder_);
  options.kv_cache_dtype = "f32";
  const bool rounded = GetParam().rounds_inputs;
  const TinyAnswers found = answers_of(options);
  const double error = relative_error(found, answers_of(tiny_options(real_folder_)));
  EXPECT_LT(error, rounded ? 0.2 : 1e-5);
  EXPECT_GT(error, rounded ? 1e-4 : -1.0);
  options.tensor_parallel_size = 2;
  EXPECT_LT(relative_error(answers_of(options), found), rounded ? 0.2 : 1e-5) << "shares of channels";
  options.enable_expert_parallel = true;
  EXPECT_LT(relative_error(answers_of(options), found), rounded ? 0.2 : 1e-5) << "whole experts";
}

// ---- What else may be on disk, and what may be wrong.

class MixtureFiles : public testing::Test {
 protected:
  MixtureFiles() {
    llama_.mixture = Mixture::kMixtral;
    llama_.experts = 3;
    llama_.fill();
  }
  TinyAnswers answers() {
    TestCheckpoint checkpoint;
    llama_.add_plain(checkpoint);
    const TestFolder folder;
    llama_.write(folder, checkpoint);
    return answers_of(tiny_options(folder));
  }
  std::string error(const std::function<void(TestCheckpoint&)>& change = {}) {
    TestCheckpoint checkpoint;
    llama_.add_plain(checkpoint);
    if (change) change(checkpoint);
    const TestFolder folder;
    llama_.write(folder, checkpoint);
    return error_text([&] { answers_of(tiny_options(folder)); });
  }
  // All experts of layer 0 in one tensor each, as transformers 5 has them in memory.
  static void stack(TinyLlama& llama, const std::string& module) {
    for (const bool down : {false, true}) {
      std::vector<float> values;
      for (int64_t e = 0; e < llama.experts; ++e) {
        for (const char* leaf : {"w1", "w3", "w2"}) {
          if ((std::string(leaf) == "w2") != down) continue;
          const std::string name = module + ".experts." + std::to_string(e) + "." + leaf + ".weight";
          const Matrix& matrix = llama.tensors.at(name);
          values.insert(values.end(), matrix.values.begin(), matrix.values.end());
          llama.tensors.erase(name);
        }
      }
      const Shape shape = down ? Shape{llama.experts, llama.hidden, llama.intermediate}
                               : Shape{llama.experts, 2 * llama.intermediate, llama.hidden};
      llama.tensors.emplace(module + (down ? ".experts.down_proj" : ".experts.gate_up_proj"),
                            Matrix{shape, std::move(values)});
    }
  }

  TinyLlama llama_;
};

// By llm-compressor 0.14 on transformers 5: block_sparse_moe.experts.E.gate_proj. And stacked.
TEST_F(MixtureFiles, EverySpellingIsTheSameModel) {
  const TinyAnswers expected = answers();
  TinyLlama stacked = llama_;
  llama_.rename("w1", "gate_proj");
  llama_.rename("w3", "up_proj");
  llama_.rename("w2", "down_proj");
  EXPECT_EQ(answers(), expected);
  llama_ = stacked;
  stack(llama_, "model.layers.0.block_sparse_moe");  // layer 1 as it was
  EXPECT_EQ(answers(), expected);
}

TEST_F(MixtureFiles, PrefixCacheHitsChangeNothing) {
  TestCheckpoint checkpoint;
  llama_.add_plain(checkpoint);
  const TestFolder folder;
  llama_.write(folder, checkpoint);
  EngineOptions options = tiny_options(folder);
  const TinyAnswers first = answers_of(options), second = second_answers_of(options);
  EXPECT_GT(second.num_cached_tokens, first.num_cached_tokens);
  EXPECT_EQ(second.tokens, first.tokens);
  options.max_num_batched_tokens = 16;  // prompts in chunks
  EXPECT_EQ(answers_of(options), first);
}

TEST_F(MixtureFiles, MissingAndSurplusExperts) {
  llama_.config["num_local_experts"] = 4;
  EXPECT_THAT(error(),
              HasSubstr("model.layers.0.block_sparse_moe.experts: the checkpoint has experts 0 to 2, config.json "
                        "says num_local_experts = 4"));
  llama_.config["num_local_experts"] = 2;
  EXPECT_THAT(error(), HasSubstr("the checkpoint has experts 0 to 2, config.json says num_local_experts = 2"));
  llama_.config["num_local_experts"] = 3;
  EXPECT_THAT(error([](TestCheckpoint& c) { c.remove("model.layers.1.block_sparse_moe.experts.1.w3.weight"); }),
              HasSubstr("1 tensors of the model are not in the checkpoint: "
                        "model.layers.1.block_sparse_moe.experts.1.w3.weight"));
  EXPECT_THAT(error([](TestCheckpoint& c) { c.remove("model.layers.1.block_sparse_moe.gate.weight"); }),
              HasSubstr("model.layers.1.block_sparse_moe.gate.weight"));
  llama_.config["num_experts_per_tok"] = 5;
  EXPECT_THAT(error(),
              HasSubstr("num_experts_per_tok = 5: a token cannot have more experts than the 3 of num_local_experts"));
  llama_.config["num_experts_per_tok"] = 0;
  EXPECT_THAT(error(), HasSubstr("num_experts_per_tok"));
}

TEST_F(MixtureFiles, ExpertsThatAreThereTwice) {
  const std::string experts = "model.layers.0.block_sparse_moe.experts.";
  const auto twice = [&](TestCheckpoint& c) {
    c.add(experts + "1.gate_proj.weight", DType::kF32, Shape{llama_.intermediate, llama_.hidden},
          llama_.weight(experts + "1.w1").values);
  };
  EXPECT_THAT(error(twice), HasSubstr("model.layers.0.block_sparse_moe.experts: its experts are there twice"));
  const auto wrong_shape = [&](TestCheckpoint& c) { c.add(experts + "2.w2.weight", DType::kF32, Shape{1, 2}, {1, 2}); };
  EXPECT_THAT(error(wrong_shape), HasSubstr(experts + "2.w2.weight: shape [1, 2], config says [64, 96]"));
}

TEST_F(MixtureFiles, StackedExpertsInEightBitsAreNotSupportedByName) {
  stack(llama_, "model.layers.0.block_sparse_moe");
  llama_.config["quantization_config"] =
      parse_json(R"({"quant_method": "fp8", "activation_scheme": "dynamic"})", "test");
  const auto in_8_bits = [&](TestCheckpoint& c) {
    const Matrix& matrix = llama_.tensors.at("model.layers.0.block_sparse_moe.experts.gate_up_proj");
    c.add("model.layers.0.block_sparse_moe.experts.gate_up_proj", DType::kF8E4M3, matrix.shape, matrix.values);
  };
  EXPECT_THAT(error(in_8_bits), HasSubstr("model.layers.0.block_sparse_moe.experts.gate_up_proj: f8_e4m3: experts in 8 "
                                          "bits that are stacked in one tensor are not supported"));
}

// What octet quantises, expert by expert, loads and answers like its source.
TEST_F(MixtureFiles, QuantisedMixtures) {
  TestCheckpoint checkpoint;
  llama_.add_plain(checkpoint);
  const TestFolder folder;
  llama_.write(folder, checkpoint);
  const TinyAnswers expected = answers_of(tiny_options(folder));
  for (const std::string scheme : {"fp8", "fp8_dynamic", "fp8_block", "int8"}) {
    SCOPED_TRACE(scheme);
    const TestFolder out;
    const QuantizeReport report = quantize_checkpoint(
        {.model_folder = folder.path(), .out_folder = out / "quantised", .scheme = scheme, .num_threads = 2});
    EXPECT_EQ(report.linears.size(), static_cast<size_t>(llama_.layers * (4 + 3 * llama_.experts)));
    const SafetensorsFolder files(out / "quantised");
    EXPECT_EQ(files.find("model.layers.0.block_sparse_moe.gate.weight")->dtype, DType::kF32);
    EXPECT_EQ(dtype_bytes(files.find("model.layers.0.block_sparse_moe.experts.2.w2.weight")->dtype), 1);
    EngineOptions options = tiny_options(folder);
    options.model_folder = out / "quantised";
    EXPECT_LT(relative_error(answers_of(options), expected), 0.25);
  }
}

// Calibration sees what reaches each expert: every expert has an input scale of its own.
TEST_F(MixtureFiles, CalibratedMixtures) {
  TestCheckpoint checkpoint;
  llama_.add_plain(checkpoint);
  const TestFolder folder, out;
  llama_.write(folder, checkpoint);
  std::vector<std::vector<int32_t>> tokens;
  for (int32_t sample = 0; sample < 9; ++sample) tokens.push_back(prompt_of(40, sample));
  quantize_checkpoint({.model_folder = folder.path(),
                       .out_folder = out / "quantised",
                       .scheme = "fp8",
                       .activation_scheme = "static",
                       .calibration_tokens = tokens,
                       .num_samples = 8,
                       .num_threads = 2});
  const SafetensorsFolder files(out / "quantised");
  std::set<float> scales;
  for (int64_t e = 0; e < llama_.experts; ++e) {
    const ConstTensor scale =
        files.tensor("model.layers.1.block_sparse_moe.experts." + std::to_string(e) + ".w2.input_scale");
    float value = 0.0f;
    std::memcpy(&value, scale.bytes, sizeof(value));
    scales.insert(value);
  }
  EXPECT_EQ(scales.size(), static_cast<size_t>(llama_.experts));
  EngineOptions options = tiny_options(folder);
  const TinyAnswers expected = answers_of(options);
  options.model_folder = out / "quantised";
  EXPECT_LT(relative_error(answers_of(options), expected), 0.25);
}

// A request whose router breaks ends with an error; its neighbour's answer is what it is alone.
TEST_F(MixtureFiles, BrokenRoutersEndTheirRequestOnly) {
  Matrix& embedding = llama_.tensors.at("model.embed_tokens.weight");
  for (int64_t i = 0; i < llama_.hidden; ++i) embedding.at(95, i) = std::nanf("");
  TestCheckpoint checkpoint;
  llama_.add_plain(checkpoint);
  const TestFolder folder;
  llama_.write(folder, checkpoint);
  const auto ask = [&](bool with_broken) {
    Engine engine(tiny_options(folder));
    Client client;
    if (with_broken) client.submit(engine, make_request("broken", {3, 95, 4}, {.temperature = 0.0, .max_tokens = 6}));
    client.submit(engine, make_request("good", {5, 6, 7}, {.temperature = 0.0, .max_tokens = 6}));
    auto answers = client.wait();
    if (with_broken) {
      EXPECT_THAT(answers.at("broken").error, HasSubstr("NaN logits"));
    }
    EXPECT_EQ(answers.at("good").error, "");
    return answers.at("good").tokens[0];
  };
  EXPECT_EQ(ask(true), ask(false));
}

}  // namespace
}  // namespace octet
