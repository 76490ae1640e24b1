// FP8 linears against PyTorch (scripts/make_golden.py fp8): the same model with weights and activations replaced by the
// real numbers that their FP8 codes stand for.
#include <gtest/gtest.h>

#include "model_runner.h"

namespace octet {
namespace {

// Routers, and what weighs a shared expert.
bool is_gate(const std::string& module) { return module.ends_with(".gate") || module.ends_with("shared_expert_gate"); }

class Fp8 : public testing::TestWithParam<KernelSelection> {};
INSTANTIATE_TEST_SUITE_P(Kernels, Fp8, testing::Values(KernelSelection::kReferenceOnly, KernelSelection::kFastest));

TEST_P(Fp8, QuantisedWhileLoading) {
  for (const std::string variant : {"llama3", "qwen2", "mixtral", "qwen2_moe"}) {
    SCOPED_TRACE(variant);
    ModelRunner runner(RunnerOptions{.folder = golden_folder(variant),
                                     .quant = {.quantization = "fp8"},
                                     .kernels = GetParam(),
                                     .num_sequences = 10});
    for (const Model::LinearRow& row : runner.model().linears()) {
      if (row.module == "lm_head" || is_gate(row.module)) {
        EXPECT_FALSE(row.weight.quantized()) << row.module;
        continue;
      }
      EXPECT_EQ(row.weight, kF8Channel) << row.module;
      EXPECT_EQ(row.activation, kF8DynamicToken) << row.module;
    }
    const std::vector<int32_t> prompt = Recording(variant, "golden.safetensors").integers("input_ids");
    expect_same_but_for_flips(runner.step(pieces_of(prompt, kFp8Piece)),
                              Recording(variant, "golden_fp8.safetensors").floats("logits"), runner.vocab_size());
  }
}

TEST_P(Fp8, StoredWithStaticScales) {
  ModelRunner runner(
      RunnerOptions{.folder = golden_folder("llama_autofp8"), .kernels = GetParam(), .num_sequences = 10});
  const std::vector<Model::LinearRow> rows = runner.model().linears();
  EXPECT_EQ(rows[0].weight, kF8Channel);  // q, k, v have scales of their own
  EXPECT_EQ(rows[1].weight, kF8Tensor);   // o_proj
  EXPECT_EQ(rows[0].activation, kF8StaticTensor);
  const Recording golden("llama_autofp8", "golden_fp8.safetensors");
  expect_same_but_for_flips(runner.step(pieces_of(golden.integers("input_ids"), kFp8Piece)), golden.floats("logits"),
                            runner.vocab_size());
}

// Every expert with scales of its own, those of its inputs too: larger ones would show.
TEST_P(Fp8, StoredExpertsWithStaticScales) {
  ModelRunner runner(
      RunnerOptions{.folder = golden_folder("mixtral_autofp8"), .kernels = GetParam(), .num_sequences = 10});
  for (const Model::LinearRow& row : runner.model().linears()) {
    const bool expert = row.module.find(".experts.") != std::string::npos;
    EXPECT_EQ(row.activation, expert ? kF8StaticTensor : row.activation) << row.module;
    EXPECT_EQ(row.weight.quantized(), expert) << row.module;
  }
  const Recording golden("mixtral_autofp8", "golden_fp8.safetensors");
  expect_same_but_for_flips(runner.step(pieces_of(golden.integers("input_ids"), kFp8Piece)), golden.floats("logits"),
                            runner.vocab_size());
}

// Stored FP8 that no fast kernel takes: the same weights as real numbers, activations not rounded to FP8.
TEST_P(Fp8, StoredButWithoutAFastKernel) {
  RunnerOptions options{.folder = golden_folder("llama_autofp8"), .kernels = GetParam(), .num_sequences = 10};
  ModelRunner quantised(options);
  options.only_plain_runs_fast = true;
  ModelRunner real(options);
  for (const Model::LinearRow& row : real.model().linears()) EXPECT_FALSE(row.weight.quantized()) << row.module;
  EXPECT_EQ(real.weights().dequantised.size(), 2u);  // per channel where fused, per tensor elsewhere
  const std::vector<int32_t> prompt = Recording("llama_autofp8", "golden_fp8.safetensors").integers("input_ids");
  const double error = row_error(real.step(pieces_of(prompt, kFp8Piece)), quantised.step(pieces_of(prompt, kFp8Piece)),
                                 real.vocab_size());
  EXPECT_GT(error, 1e-5);
  EXPECT_LT(error, 0.25);
}

// In blocks and in INT8: not the model's own logits, but about as near as FP8 per channel.
TEST_P(Fp8, OtherSchemesQuantisedWhileLoading) {
  struct Expected {
    std::string quantization;
    DType dtype;
    QuantFormat activation;
  };
  for (const Expected& expected :
       {Expected{"fp8_block", DType::kF8E4M3, kF8DynamicGroup}, Expected{"int8", DType::kI8, kI8DynamicToken}}) {
    SCOPED_TRACE(expected.quantization);
    RunnerOptions options{.folder = golden_folder("llama3"), .kernels = GetParam()};
    ModelRunner plain(options);
    options.quant.quantization = "fp8";
    ModelRunner per_channel(options);
    options.quant.quantization = expected.quantization;
    ModelRunner quantised(options);
    for (const Model::LinearRow& row : quantised.model().linears()) {
      if (row.module == "lm_head") continue;
      EXPECT_EQ(row.weight.dtype, expected.dtype) << row.module;
      EXPECT_EQ(row.activation.dtype, expected.activation.dtype) << row.module;
      EXPECT_EQ(row.activation.granularity, expected.activation.granularity) << row.module;
    }
    const Piece prompt{0, Recording("llama3", "golden.safetensors").integers("input_ids")};
    const std::vector<float> real = plain.step({prompt});
    const double error = row_error(quantised.step({prompt}), real, plain.vocab_size());
    EXPECT_GT(error, 1e-4);
    EXPECT_LT(error, 1.5 * row_error(per_channel.step({prompt}), real, plain.vocab_size()));
  }
}

// The lm_head may be quantised too, tied or not.
TEST_P(Fp8, QuantisedLmHead) {
  for (const std::string variant : {"llama3", "qwen2"}) {
    RunnerOptions options{.folder = golden_folder(variant), .quant = {.quantization = "fp8"}, .kernels = GetParam()};
    ModelRunner plain(options);
    options.quant.quantize_lm_head = true;
    ModelRunner quantised(options);
    EXPECT_EQ(quantised.model().linears().back().module, "lm_head");
    EXPECT_EQ(quantised.model().linears().back().weight, kF8Channel);
    const Piece prompt{0, Recording(variant, "golden.safetensors").integers("input_ids")};
    const double error = row_error(quantised.step({prompt}), plain.step({prompt}), plain.vocab_size());
    EXPECT_GT(error, 1e-4);
    EXPECT_LT(error, 0.25);
  }
}

}  // namespace
}  // namespace octet
