// Every variant of the Llama family and the mixtures of experts against Hugging Face transformers
// (scripts/make_golden.py): hidden states, logits and greedy tokens, through the paged cache, in chunks and in mixed
// batches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "model_runner.h"

namespace octet {
namespace {

// The norm: for each row (token) max |ours - theirs| / max |theirs|; F32 against F32 in another order of summation.
constexpr double kTolerance = 1e-4;

const std::vector<std::string> kVariants = {
    "llama2",           "llama3",          "llama_linear", "llama_dynamic", "llama_yarn",  "llama_attention_bias",
    "llama_mlp_bias",   "mistral",         "qwen2",        "qwen2_window",  "qwen3",       "smollm2",
    "mixtral",          "mixtral_stacked", "qwen2_moe",    "qwen3_moe",     "deepseek_v2", "deepseek_v2_groups",
    "deepseek_v2_wide", "deepseek_v3"};

struct GoldenCase {
  std::string variant;
  KernelSelection kernels = KernelSelection::kReferenceOnly;
};

class Golden : public testing::TestWithParam<GoldenCase> {
 protected:
  RunnerOptions options() const {
    return RunnerOptions{.folder = golden_folder(GetParam().variant), .kernels = GetParam().kernels};
  }
  Recording recording() const { return Recording(GetParam().variant, "golden.safetensors"); }
};

TEST_P(Golden, HiddenStatesAndLogits) {
  const Recording golden = recording();
  ModelRunner runner(options());
  std::map<std::string, std::vector<float>> seen;
  runner.observe = [&](std::string_view name, ConstTensor value) { seen[std::string(name)] = to_floats(value); };
  const std::vector<float> logits = runner.step({Piece{0, golden.integers("input_ids")}});
  EXPECT_EQ(seen.size(), static_cast<size_t>(runner.config().num_hidden_layers) + 2);
  for (const auto& [name, values] : seen) {
    EXPECT_LT(row_error(values, golden.floats("hidden." + name), runner.config().hidden_size), kTolerance) << name;
  }
  EXPECT_LT(row_error(logits, golden.floats("logits"), runner.vocab_size()), kTolerance);
}

TEST_P(Golden, GreedyTokensInAnyChunks) {
  const Recording golden = recording();
  const std::vector<int32_t> prompt = golden.integers("input_ids");
  const std::vector<int32_t> expected = golden.integers("greedy");
  for (const int chunk : {40, 7, 1}) {
    ModelRunner runner(options());
    EXPECT_EQ(runner.generate(prompt, chunk, static_cast<int>(expected.size())), expected) << "chunks of " << chunk;
  }
}

// Chunks and neighbours in the batch must not change a bit.
TEST_P(Golden, LogitsDoNotDependOnTheBatch) {
  const std::vector<int32_t> prompt = recording().integers("input_ids");
  const auto part = [&](size_t begin, size_t end) {
    return std::vector<int32_t>(prompt.begin() + static_cast<int64_t>(begin),
                                prompt.begin() + static_cast<int64_t>(end));
  };
  ModelRunner alone(options());
  const std::vector<float> expected = alone.step({Piece{0, prompt}});
  RunnerOptions three = options();
  three.num_sequences = 3;
  ModelRunner mixed(three);
  std::vector<float> first = mixed.step({Piece{2, part(20, 33)}, Piece{1, part(0, 13)}, Piece{0, part(5, 6)}});
  std::vector<float> second = mixed.step({Piece{0, part(9, 17)}, Piece{1, part(13, 40)}, Piece{2, part(1, 2)}});
  const auto v = static_cast<int64_t>(mixed.vocab_size());
  std::vector<float> joined(first.begin() + 13 * v, first.begin() + 26 * v);
  joined.insert(joined.end(), second.begin() + 8 * v, second.begin() + 35 * v);
  EXPECT_EQ(joined, expected);
}

TEST_P(Golden, ActivationsFitTheirBound) {
  for (const int tokens : {1, 3, 40}) {
    RunnerOptions small = options();
    small.max_step_tokens = tokens;
    ModelRunner runner(small);
    const std::vector<int32_t> prompt = recording().integers("input_ids");
    runner.step({Piece{0, {prompt.begin(), prompt.begin() + tokens}}});
    EXPECT_LE(runner.peak_bytes(), runner.model().activation_bytes(tokens, tokens)) << tokens;
  }
}

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const std::string& variant : kVariants) {
    cases.push_back({variant, KernelSelection::kReferenceOnly});
    cases.push_back({variant, KernelSelection::kFastest});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Variants, Golden, testing::ValuesIn(golden_cases()), [](const auto& test) {
  return test.param.variant + (test.param.kernels == KernelSelection::kReferenceOnly ? "_reference" : "_fastest");
});

// With plain BF16 weights (exact for the variants stored in BF16) and a BF16 cache, only the cache rounds.
TEST(GoldenBf16, CacheInBf16StaysClose) {
  const Recording golden("llama3", "golden.safetensors");
  for (const KernelSelection kernels : {KernelSelection::kReferenceOnly, KernelSelection::kFastest}) {
    const std::string folder = golden_folder("llama3");
    ModelRunner exact(RunnerOptions{.folder = folder, .plain_dtype = DType::kBF16, .kernels = kernels});
    const Piece prompt{0, golden.integers("input_ids")};
    EXPECT_LT(row_error(exact.step({prompt}), golden.floats("logits"), exact.vocab_size()), kTolerance);
    ModelRunner rounded(
        RunnerOptions{.folder = folder, .plain_dtype = DType::kBF16, .kv_dtype = DType::kBF16, .kernels = kernels});
    const double error = row_error(rounded.step({prompt}), golden.floats("logits"), rounded.vocab_size());
    EXPECT_GT(error, kTolerance);  // it does round
    EXPECT_LT(error, 0.05);
  }
}

TEST(Models, UnknownArchitectureNamesTheSupportedOnes) {
  ModelConfig config = ModelConfig::from_folder(golden_folder("llama2"));
  config.architecture = "GPT2LMHeadModel";
  try {
    find_arch(config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(
        error.what(),
        testing::HasSubstr("architecture \"GPT2LMHeadModel\" is not supported; supported: DeepseekV2ForCausalLM, "
                           "DeepseekV3ForCausalLM, LlamaForCausalLM, "
                           "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, MixtralForCausalLM, "
                           "Qwen2MoeForCausalLM, Qwen3MoeForCausalLM"));
  }
}

TEST(Models, DummyWeightsGiveFiniteLogits) {
  for (const std::string quantization : {"", "fp8", "fp8_tensor"}) {
    ModelRunner runner(RunnerOptions{
        .folder = golden_folder("qwen3"), .quant = {.quantization = quantization}, .dummy_weights = true});
    const std::vector<float> logits = runner.step({Piece{0, {1, 2, 3}}});
    double sum = 0.0;
    for (const float logit : logits) sum += std::abs(logit);
    EXPECT_GT(sum, 0.0) << quantization;
    EXPECT_TRUE(std::isfinite(sum)) << quantization;
  }
}

}  // namespace
}  // namespace octet
