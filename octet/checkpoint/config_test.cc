#include "octet/checkpoint/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Json llama() {
  return parse_json(
      R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"intermediate_size":128,
    "num_hidden_layers":4,"num_attention_heads":8,"vocab_size":100,"max_position_embeddings":256})",
      "config.json");
}

ModelConfig with(const std::string& members) {
  Json json = llama();
  const Json more = parse_json(members, "more");
  for (const auto& [key, value] : more.items()) json[key] = value;
  return ModelConfig::from_json(json, "config.json");
}

std::string error_with(const std::string& members) {
  return error_text([&] { with(members); });
}

TEST(ModelConfig, HuggingFacesDefaults) {
  const ModelConfig config = with("{}");
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.num_key_value_heads, 8);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_TRUE(config.rope_scaling.is_null());
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::kF32);
  EXPECT_THAT(config.eos_token_id, IsEmpty());
  EXPECT_EQ(config.quantization_config(), nullptr);
  EXPECT_EQ(config.sliding_window, std::nullopt);
}

TEST(ModelConfig, EachField) {
  const ModelConfig config = with(
      R"({"num_key_value_heads":2,"head_dim":32,"rms_norm_eps":1e-5,"tie_word_embeddings":true,"torch_dtype":"bfloat16",
    "bos_token_id":1,"eos_token_id":[2,3],"hidden_act":"gelu","quantization_config":{"quant_method":"fp8"}})");
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_THAT(config.bos_token_id, ElementsAre(1));
  EXPECT_THAT(config.eos_token_id, ElementsAre(2, 3));
  EXPECT_EQ(config.hidden_act, "gelu");
  EXPECT_EQ((*config.quantization_config())["quant_method"], "fp8");
  EXPECT_EQ(with(R"({"dtype":"float16"})").dtype, DType::kF16);
  EXPECT_EQ(with(R"({"torch_dtype":"torch.float32"})").dtype, DType::kF32);
  EXPECT_EQ(with(R"({"dtype":null,"torch_dtype":"float16"})").dtype, DType::kF16);
}

TEST(ModelConfig, RopeInAllSpellings) {
  EXPECT_EQ(with(R"({"rope_theta":5e5})").rope_theta, 5e5);
  const ModelConfig four = with(R"({"rope_theta":5e5,"rope_scaling":{"rope_type":"llama3","factor":8.0}})");
  EXPECT_EQ(four.rope_theta, 5e5);
  EXPECT_EQ(four.rope_scaling["factor"], 8.0);
  EXPECT_EQ(with(R"({"rope_scaling":{"type":"linear","factor":2.0}})").rope_scaling["type"], "linear");
  const ModelConfig five = with(R"({"rope_parameters":{"rope_type":"yarn","rope_theta":1e6,"factor":4.0}})");
  EXPECT_EQ(five.rope_theta, 1e6);
  EXPECT_EQ(five.rope_scaling["rope_type"], "yarn");
  const ModelConfig plain = with(R"({"rope_parameters":{"rope_type":"default","rope_theta":1e6}})");
  EXPECT_EQ(plain.rope_theta, 1e6);
  EXPECT_TRUE(plain.rope_scaling.is_null());
  EXPECT_THAT(error_with(R"({"rope_scaling":{"factor":2.0}})"), HasSubstr("rope_scaling: rope_type is missing"));
  EXPECT_THAT(error_with(R"({"rope_scaling":7})"), HasSubstr("rope_scaling: expected a JSON object"));
  EXPECT_THAT(error_with(R"({"rope_theta":-1})"), HasSubstr("rope_theta: expected a number above 0"));
}

TEST(ModelConfig, SlidingWindowOfEachFamily) {
  EXPECT_EQ(with(R"({"model_type":"mistral","sliding_window":4096})").sliding_window, 4096);
  EXPECT_EQ(with(R"({"model_type":"mistral","sliding_window":null})").sliding_window, std::nullopt);
  EXPECT_EQ(with(R"({"model_type":"qwen2","sliding_window":64,"use_sliding_window":false})").sliding_window,
            std::nullopt);
  EXPECT_EQ(with(R"({"model_type":"qwen2","sliding_window":64})").sliding_window, std::nullopt);
  EXPECT_EQ(with(R"({"model_type":"qwen2","sliding_window":64,"use_sliding_window":true,"max_window_layers":2})")
                .sliding_window,
            64);
  EXPECT_EQ(with(R"({"model_type":"qwen2","sliding_window":64,"use_sliding_window":true,"max_window_layers":4})")
                .sliding_window,
            std::nullopt);
}

TEST(ModelConfig, NamesTheFieldThatIsWrong) {
  const auto without = [](const char* key) {
    Json json = llama();
    json.erase(key);
    return error_text([&] { ModelConfig::from_json(json, "config.json"); });
  };
  for (const char* key : {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "vocab_size", "max_position_embeddings"}) {
    EXPECT_EQ(without(key), std::string("config.json: ") + key + " is missing");
  }
  EXPECT_THAT(without("architectures"), HasSubstr("config.json: architectures: expected a list"));
  EXPECT_THAT(error_with(R"({"hidden_size":0})"),
              HasSubstr("hidden_size: expected an integer from 1 to 1048576, found 0"));
  EXPECT_THAT(error_with(R"({"hidden_size":4611686018427387904})"), HasSubstr("hidden_size"));
  EXPECT_THAT(error_with(R"({"num_hidden_layers":-1})"), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(error_with(R"({"vocab_size":"x"})"), HasSubstr("vocab_size: expected an integer"));
  EXPECT_THAT(error_with(R"({"num_key_value_heads":3})"), HasSubstr("not a multiple of num_key_value_heads 3"));
  EXPECT_THAT(error_with(R"({"num_attention_heads":7})"),
              HasSubstr("hidden_size 64 is not a multiple of num_attention_heads 7"));
  EXPECT_THAT(error_with(R"({"head_dim":7})"), HasSubstr("head_dim 7 is odd"));
  EXPECT_THAT(error_with(R"({"eos_token_id":100})"),
              HasSubstr("eos_token_id: expected token ids from 0 to 99, found 100"));
  EXPECT_THAT(error_with(R"({"eos_token_id":[1,"2"]})"), HasSubstr("eos_token_id"));
  EXPECT_THAT(error_with(R"({"torch_dtype":"int4"})"), HasSubstr("torch_dtype: \"int4\" is not supported"));
  EXPECT_THAT(error_with(R"({"rms_norm_eps":0})"), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(error_with(R"({"quantization_config":"fp8"})"), HasSubstr("quantization_config: expected an object"));
  EXPECT_THAT(error_text([] { ModelConfig::from_folder("/nowhere"); }), HasSubstr("/nowhere: no config.json"));
}

TEST(ModelConfig, ArchitectureBeforeAnythingElse) {
  EXPECT_EQ(architecture_of(parse_json(R"({"architectures":["Other"]})", "c"), "c"), "Other");
  EXPECT_THAT(error_text([] { architecture_of(parse_json(R"({"architectures":[]})", "c"), "c"); }),
              HasSubstr("architectures"));
}

TEST(GenerationConfig, FileOrNothing) {
  const TestFolder folder;
  EXPECT_EQ(GenerationConfig::from_folder(folder.path()).temperature, std::nullopt);
  folder.write(
      "generation_config.json",
      R"({"temperature":0.6,"top_p":0.9,"top_k":20,"repetition_penalty":1.1,"max_new_tokens":7,"eos_token_id":[5,6],"do_sample":true})");
  const GenerationConfig config = GenerationConfig::from_folder(folder.path());
  EXPECT_EQ(config.temperature, 0.6);
  EXPECT_EQ(config.top_p, 0.9);
  EXPECT_EQ(config.top_k, 20);
  EXPECT_EQ(config.min_p, std::nullopt);
  EXPECT_EQ(config.repetition_penalty, 1.1);
  EXPECT_EQ(config.max_new_tokens, 7);
  EXPECT_THAT(config.eos_token_id, ElementsAre(5, 6));
  folder.write("generation_config.json", R"({"temperature":"hot"})");
  EXPECT_THAT(error_text([&] { GenerationConfig::from_folder(folder.path()); }),
              HasSubstr("temperature: expected a number"));
}

}  // namespace
}  // namespace octet
