// Mixtures of experts and latent attention through the engine: batches, chunks, prefix hits, preemption and ranks
// change no token, in 8 bits as in others.
#include <gtest/gtest.h>

#include "octet/engine/same_tokens_for_test.h"

namespace octet {
namespace {

struct Variant {
  std::string name;
  std::string_view architecture;
  bool has_gpu_kernels = true;
};

constexpr std::string_view kMixtral = R"("architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
    "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2)";
constexpr std::string_view kQwen2Moe = R"("architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe",
    "num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 48, "norm_topk_prob": false, "decoder_sparse_step": 1, "mlp_only_layers": [])";
constexpr std::string_view kQwen3Moe = R"("architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
    "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
    "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [])";
constexpr std::string_view kDeepSeekV2 = R"("architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
    "num_key_value_heads": 4, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "q_lora_rank": null, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "topk_method": "greedy", "routed_scaling_factor": 1.0)";
constexpr std::string_view kDeepSeekV3 = R"("architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "num_key_value_heads": 4, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "q_lora_rank": 24, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5,
    "norm_topk_prob": true)";

class MixtureEngineTest : public testing::TestWithParam<Variant> {
 protected:
  EngineOptions plain() const { return model_.options(); }
  EngineOptions in_8_bits() const {
    EngineOptions options = plain();
    options.quant.quantization = "fp8";
    options.kv_cache_dtype = "fp8";
    return options;
  }

  TinyModel model_{GetParam().architecture};
};

INSTANTIATE_TEST_SUITE_P(Models, MixtureEngineTest,
                         testing::Values(Variant{"mixtral", kMixtral}, Variant{"qwen2_moe", kQwen2Moe},
                                         Variant{"qwen3_moe", kQwen3Moe}, Variant{"deepseek_v2", kDeepSeekV2, false},
                                         Variant{"deepseek_v3", kDeepSeekV3, false}),
                         [](const auto& test) { return test.param.name; });

TEST_P(MixtureEngineTest, TokensDoNotDependOnHowStepsAreMade) { expect_tokens_however_steps_are_made(plain()); }
TEST_P(MixtureEngineTest, In8BitsNeither) { expect_tokens_however_steps_are_made(in_8_bits()); }
TEST_P(MixtureEngineTest, PreemptionChangesNoToken) { expect_tokens_despite_preemption(in_8_bits()); }

TEST_P(MixtureEngineTest, CachedPromptsGiveTheSameTokens) {
  for (const EngineOptions& options : {plain(), in_8_bits()}) {
    Engine engine(options);
    Answer answers[2];
    for (Answer& answer : answers) {
      Client client;
      client.submit(engine, make_request("a", prompt_of(33, 1), {.temperature = 0.0, .max_tokens = 6}));
      answer = client.wait()["a"];
    }
    EXPECT_EQ(answers[0].num_cached_tokens, 0);
    EXPECT_EQ(answers[1].num_cached_tokens, 32);
    EXPECT_EQ(answers[0].tokens, answers[1].tokens);
  }
}

// Sums over ranks have another order: of F32 activations' tokens that changes none here.
TEST_P(MixtureEngineTest, TwoRanksGiveTheTokensOfOne) {
  const Tokens expected = run_together(plain());
  for (const bool whole_experts : {false, true}) {
    EngineOptions two = plain();
    two.tensor_parallel_size = 2;
    two.enable_expert_parallel = whole_experts;
    EXPECT_EQ(run_together(two), expected) << (whole_experts ? "experts" : "channels");
  }
}

TEST_P(MixtureEngineTest, GpuTokensDoNotDependOnHowStepsAreMade) {
  if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
  EngineOptions options = in_8_bits();
  options.device = "cuda";
  if (GetParam().has_gpu_kernels) return expect_tokens_however_steps_are_made(options);
  EXPECT_THROW(Engine{options}, Error);
}

}  // namespace
}  // namespace octet
