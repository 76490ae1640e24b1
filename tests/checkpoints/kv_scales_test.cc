// Scales of an 8-bit KV cache that a checkpoint has, end to end. The oracle is arithmetic: keys made smaller by a power
// of two and queries larger by it give the same logits, bit for bit, if the cache stores them by a scale that is
// smaller by that power; with a scale of 1 the smaller keys vanish. Values and the output projection alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/checkpoints/tiny_llama.h"

namespace octet {
namespace {

using testing::HasSubstr;

constexpr float kPower = 0x1p-14f;

struct Scale {
  std::string name;  // without "model.layers.N.self_attn."
  Shape shape;
  std::vector<float> values;
};

class KvScales : public testing::Test {
 protected:
  KvScales() { llama_.fill(); }

  // The powers of the model's KV heads.
  void shrink(const std::vector<float>& k, const std::vector<float>& v) {
    const int64_t d = llama_.head_dim, group = llama_.heads / llama_.kv_heads;
    for (int64_t layer = 0; layer < llama_.layers; ++layer) {
      const std::string attention = layer_name(layer) + ".self_attn.";
      Matrix& o = llama_.weight(attention + "o_proj");
      for (int64_t h = 0; h < llama_.kv_heads; ++h) {
        const auto head = static_cast<size_t>(h);
        llama_.weight(attention + "k_proj").scale_rows(h * d, d, k[head]);
        llama_.weight(attention + "v_proj").scale_rows(h * d, d, v[head]);
        llama_.weight(attention + "q_proj").scale_rows(h * group * d, group * d, 1.0f / k[head]);
        for (int64_t row = 0; row < o.shape[0]; ++row) {
          for (int64_t column = h * group * d; column < (h + 1) * group * d; ++column) o.at(row, column) /= v[head];
        }
      }
    }
  }

  // With the same scales in every layer.
  EngineOptions options(const std::vector<Scale>& scales, DType dtype = DType::kF32) {
    folders_.emplace_back();
    TestCheckpoint checkpoint;
    llama_.add_plain(checkpoint);
    for (int64_t layer = 0; layer < llama_.layers; ++layer) {
      for (const Scale& scale : scales)
        checkpoint.add(layer_name(layer) + ".self_attn." + scale.name, dtype, scale.shape, scale.values);
    }
    llama_.write(folders_.back(), checkpoint);
    EngineOptions options = tiny_options(folders_.back());
    options.kv_cache_dtype = "fp8";
    return options;
  }

  TinyLlama llama_;
  std::deque<TestFolder> folders_;
};

const std::vector<Scale> kOneForEach = {{"k_scale", Shape{}, {kPower}}, {"v_scale", Shape{1}, {kPower}}};

TEST_F(KvScales, AreThoseOfTheCheckpointUnderAllNames) {
  const TinyAnswers expected = answers_of(options({}));
  shrink({kPower, kPower}, {kPower, kPower});
  EXPECT_GT(largest_difference(answers_of(options({})), expected), 0.5f);  // without scales nothing is left
  for (const auto& [k, v] :
       {std::pair("k_scale", "v_scale"), std::pair("k_proj.k_scale", "v_proj.v_scale"),
        std::pair("k_proj.output_scale", "v_proj.output_scale"), std::pair("qkv_proj.k_scale", "qkv_proj.v_scale")}) {
    EXPECT_EQ(answers_of(options({{k, Shape{}, {kPower}}, {v, Shape{1}, {kPower}}})), expected) << k;
  }
  EXPECT_EQ(answers_of(options({{"kv_scale", Shape{}, {kPower}}})), expected);
  EXPECT_EQ(answers_of(options(kOneForEach, DType::kBF16)), expected);
}

TEST_F(KvScales, StayTrueHoweverStepsAreMade) {
  shrink({kPower, kPower}, {kPower, kPower});
  EngineOptions batched = options(kOneForEach);
  batched.enable_prefix_caching = false;
  const TinyAnswers expected = answers_of(batched);
  EngineOptions alone = batched;
  alone.max_num_seqs = 1;
  EXPECT_EQ(answers_of(alone), expected);
  EngineOptions chunked = batched;
  chunked.max_num_batched_tokens = 5;
  EXPECT_EQ(answers_of(chunked), expected);
  EngineOptions cached = batched;
  cached.enable_prefix_caching = true;
  EXPECT_EQ(answers_of(cached), expected);
  const TinyAnswers again = second_answers_of(cached);
  EXPECT_EQ(again.tokens, expected.tokens);
  EXPECT_GT(again.num_cached_tokens, 0);
  EngineOptions tight = batched;
  tight.max_model_len = 56;
  tight.kv_cache_memory_bytes = 14 * 4 * Engine(tight).report().kv_bytes_per_token;
  const TinyAnswers preempted = answers_of(tight);
  EXPECT_EQ(preempted.tokens, expected.tokens);
  EXPECT_GT(preempted.num_preemptions, 0);
}

TEST_F(KvScales, OneForEachHead) {
  const TinyAnswers expected = answers_of(options({}));
  shrink({kPower, kPower / 8}, {kPower / 2, kPower * 4});
  const std::vector<Scale> per_head = {{"k_scale", Shape{2, 1, 1}, {kPower, kPower / 8}},
                                       {"v_scale", Shape{2, 1, 1}, {kPower / 2, kPower * 4}},
                                       {"q_scale", Shape{4, 1, 1}, {1, 1, 1, 1}}};
  EngineOptions options = this->options(per_head);
  EXPECT_EQ(answers_of(options), expected);
  const TinyAnswers one_rank = answers_of(options);
  options.tensor_parallel_size = 2;  // a head each
  const TinyAnswers two_ranks = answers_of(options);
  EXPECT_EQ(two_ranks.tokens, one_rank.tokens);
  EXPECT_LT(largest_difference(two_ranks, one_rank), 1e-3f);
  options.tensor_parallel_size = 4;  // each head on two ranks
  EXPECT_LT(largest_difference(answers_of(options), one_rank), 1e-3f);
}

TEST_F(KvScales, TheReportCountsThem) {
  const auto report_of = [](const EngineOptions& options) { return Engine(options).report(); };
  EXPECT_EQ(report_of(options(kOneForEach)).kv_scales, "4 of 4 KV scales loaded");
  EXPECT_EQ(report_of(options({{"k_scale", Shape{}, {kPower}}})).kv_scales, "2 of 4 KV scales loaded, the others 1");
  const EngineReport none = report_of(options({}));
  EXPECT_EQ(none.kv_scales, "0 of 4 KV scales loaded, the others 1");
  EXPECT_EQ(none.kv_tokens_to_bf16, 2.0);
  EngineOptions plain = options(kOneForEach);
  plain.kv_cache_dtype = "bf16";
  EXPECT_EQ(report_of(plain).kv_scales, "4 KV scales of the checkpoint are for kv_cache_dtype fp8 and not used");
  EngineOptions wide = options(kOneForEach);
  wide.kv_cache_dtype = "fp8_e5m2";
  EXPECT_EQ(report_of(wide).kv_scales, "4 KV scales of the checkpoint are for kv_cache_dtype fp8 and not used");
  EXPECT_EQ(report_of(plain).kv_bytes_per_token, 2 * none.kv_bytes_per_token);
  // The same memory holds twice the tokens.
  EngineOptions in_8_bits = options(kOneForEach);
  in_8_bits.kv_cache_memory_bytes = plain.kv_cache_memory_bytes = 256 * 256;
  EXPECT_EQ(report_of(in_8_bits).kv_cache_tokens, 2 * report_of(plain).kv_cache_tokens);
}

TEST_F(KvScales, AutoAsksTheCheckpoint) {
  const auto dtype_with = [&](std::string_view quantization_config) {
    llama_.config["quantization_config"] = parse_json(quantization_config, "test");
    EngineOptions options = this->options(kOneForEach);
    options.kv_cache_dtype = "auto";
    return Engine(options).report().kv_cache_dtype;
  };
  EXPECT_EQ(dtype_with(R"({"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme":
                           {"num_bits": 8, "type": "float", "strategy": "tensor"}})"),
            "f8_e4m3");
  EXPECT_EQ(dtype_with(R"({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": "FP8"})"), "f8_e4m3");
  EXPECT_EQ(dtype_with(R"({"quant_method": "modelopt", "quant_algo": "FP8"})"), "f32");
  EXPECT_EQ(dtype_with(R"({"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static"})"),
            "f32");
  llama_.config.erase("quantization_config");
  EngineOptions unknown = options({});
  unknown.kv_cache_dtype = "int8_per_token_head";
  EXPECT_THAT(error_text([&] { Engine{unknown}; }), HasSubstr("kv_cache_dtype: \"int8_per_token_head\""));
}

// What is decided for a GPU, decided without one.
TEST_F(KvScales, GpusTakeOneScaleForEachLayer) {
  const auto choose = [&](const EngineOptions& options, const KvCacheOptions& kv) {
    const ModelConfig config = ModelConfig::from_folder(options.model_folder);
    const SafetensorsFolder files(options.model_folder);
    const QuantConfig quant(config.quantization_config(), {}, DType::kBF16);
    return KvCacheChoice(kv, {.config = config,
                              .files = &files,
                              .quant = quant,
                              .model_dtype = DType::kBF16,
                              .device = {.kind = DeviceKind::kCuda}});
  };
  const EngineOptions one = options(kOneForEach);
  EXPECT_EQ(choose(one, {.dtype = "fp8"}).scales_description(), "4 of 4 KV scales loaded");
  EXPECT_THAT(error_text([&] { choose(options({}), {.dtype = "fp8", .calculate_scales = true}); }),
              HasSubstr("calculate_kv_scales: on cuda:0"));
  llama_.config["quantization_config"] = parse_json(
      R"({"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"type": "float", "strategy": "attn_head"}})",
      "test");
  const EngineOptions heads = options({{"k_scale", Shape{2, 1, 1}, {1, 2}}, {"v_scale", Shape{2, 1, 1}, {1, 2}}});
  EXPECT_EQ(choose(heads, {.dtype = "auto"}).dtype(), DType::kBF16);
  EXPECT_THAT(error_text([&] { choose(heads, {.dtype = "fp8"}); }),
              HasSubstr("kv_cache_dtype \"fp8\": the checkpoint has a KV scale for each head, cuda:0 takes one"));
}

TEST_F(KvScales, BadOnesStopTheStart) {
  const auto error_of = [&](const Scale& scale) { return error_text([&] { Engine{options({scale})}; }); };
  const std::string name = "model.layers.0.self_attn.k_scale";
  for (const float bad : {0.0f, -1.0f, std::nanf("")})
    EXPECT_THAT(error_of({"k_scale", Shape{}, {bad}}), HasSubstr(name + ": the scale is"));
  EXPECT_THAT(error_of({"k_scale", Shape{3}, {1, 1, 1}}), HasSubstr(name + ": shape [3]"));
}

TEST_F(KvScales, SomeLayersMayStayPlain) {
  const EngineOptions all = options({});
  EngineOptions skip = all;
  skip.kv_cache_dtype_skip_layers = {"1"};
  EXPECT_EQ(Engine(skip).report().kv_bytes_per_token, Engine(all).report().kv_bytes_per_token * 5 / 2);  // f32: 4 bytes
  EngineOptions both = skip;
  both.kv_cache_dtype_skip_layers = {"1", "0"};
  EngineOptions plain = all;
  plain.kv_cache_dtype = "f32";
  EXPECT_EQ(answers_of(both), answers_of(plain));
  const float error = largest_difference(answers_of(all), answers_of(plain));
  EXPECT_GT(error, 0.0f);
  EXPECT_NE(answers_of(skip), answers_of(all));
  EXPECT_NE(answers_of(skip), answers_of(plain));
  skip.kv_cache_dtype_skip_layers = {"2"};
  EXPECT_THAT(error_text([&] { Engine{skip}; }),
              HasSubstr("expected layers from 0 to 1 or \"sliding_window\", found \"2\""));
  // A window as long as everything changes nothing, but its layers are skipped.
  llama_.config["architectures"] = {"MistralForCausalLM"};
  llama_.config["model_type"] = "mistral";
  llama_.config["sliding_window"] = 256;
  EngineOptions sliding = options({});
  sliding.kv_cache_dtype_skip_layers = {"sliding_window"};
  EXPECT_EQ(answers_of(sliding), answers_of(plain));
}

TEST_F(KvScales, CalculatedFromTheFirstTokens) {
  EngineOptions real = options({});
  real.kv_cache_dtype = "f32";
  const TinyAnswers expected = answers_of(real);
  const float usual = largest_difference(answers_of(options({})), expected);
  shrink({kPower, kPower / 4}, {kPower, kPower});
  EngineOptions calculated = options({});
  calculated.calculate_kv_scales = true;
  EXPECT_EQ(Engine(calculated).report().kv_scales, "0 of 4 KV scales loaded, the others from the first tokens");
  EXPECT_LT(largest_difference(answers_behind_first_prompt(calculated), expected), 1.5f * usual);
  EXPECT_GT(largest_difference(answers_of(options({})), expected), 4.0f * usual);
  const TinyAnswers one_rank = answers_behind_first_prompt(calculated);
  calculated.tensor_parallel_size = 2;
  EXPECT_LT(largest_difference(answers_behind_first_prompt(calculated), one_rank), 0.5f * usual);
}

}  // namespace
}  // namespace octet
