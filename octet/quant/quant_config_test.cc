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
  for (const std::string_view method : {"compressed-tensors", "fbgemm_fp8", "modelopt", "gptq", "awq"}) {
    const std::string text = error_of(ErrorCode::kUnsupported, fmt::format(R"({{"quant_method": "{}"}})", method));
    EXPECT_THAT(text, HasSubstr(fmt::format("quant_method \"{}\" is not supported; octet reads", method)));
  }
  EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                       R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})"),
              HasSubstr("weight_block_size = [128,128] is not supported"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported,
                       R"({"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static"})"),
              HasSubstr("kv_cache_scheme"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, R"({"quant_method": "fp8", "activation_scheme": "group"})"),
              HasSubstr("activation_scheme \"group\""));
  EXPECT_THAT(error_of(ErrorCode::kModel, R"({"quant_method": "fp8"})"), HasSubstr("activation_scheme"));
  EXPECT_THAT(error_of(ErrorCode::kModel, R"({"activation_scheme": "static"})"), HasSubstr("quant_method"));
  EXPECT_THAT(error_of(ErrorCode::kModel, R"(["fp8"])"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(
      error_of(ErrorCode::kModel, R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": [3]})"),
      HasSubstr("ignored_layers: expected module names, found 3"));
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
      {"re:^a.*b.*c$", "a-b-b-c", true},
      {"re:^a.*b.*c$", "a-b-b-d", false},
  };
  for (const Case& c : cases)
    EXPECT_EQ(ModulePattern(c.entry).matches(c.module), c.expected) << c.entry << " " << c.module;
}

TEST(ModulePatternTest, NamesUnknownForms) {
  for (const std::string_view entry : {"re:(a|b)", "re:layers.[0-9]", "re:a+", "re:a?", "re:x*", "re:a{2}", R"(re:\d)",
                                       "re:a^b", "re:a$b", R"(re:a\)"}) {
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
