// The small real model against Hugging Face transformers (scripts/make_golden.py smollm2). Needs the converted model
// (scripts/fetch_model.sh); skipped aloud without it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "model_runner.h"

namespace octet {
namespace {

std::string model_folder() {
  if (const char* folder = std::getenv("OCTET_SMOLLM2")) return folder;
  return std::string(OCTET_SOURCE_DIR) + "/.cache/models/SmolLM2-135M-Instruct";
}

TEST(SmolLm2, LogitsOfTransformers) {
  const std::string folder = model_folder();
  if (!std::filesystem::exists(folder + "/model.safetensors")) {
    GTEST_SKIP() << "no model at " << folder << " (scripts/fetch_model.sh makes it; OCTET_SMOLLM2 names another place)";
  }
  const Json golden = read_json_file(std::string(OCTET_SOURCE_DIR) + "/tests/golden/models/smollm2.json");
  ModelRunner runner(RunnerOptions{.folder = folder, .kernels = KernelSelection::kFastest, .num_sequences = 3});
  int sequence = 0;
  for (const Json& prompt : golden.at("prompts")) {
    const auto ids = prompt.at("input_ids").get<std::vector<int32_t>>();
    const std::vector<float> all = runner.step({Piece{sequence, ids}});
    const std::vector<float> logits(all.end() - runner.vocab_size(), all.end());
    double sum = 0.0, squares = 0.0;
    for (const float logit : logits) {
      sum += logit;
      squares += static_cast<double>(logit) * logit;
    }
    EXPECT_NEAR(std::sqrt(squares) / prompt.at("l2").get<double>(), 1.0, 1e-4);
    EXPECT_NEAR(sum / static_cast<double>(logits.size()), prompt.at("mean").get<double>(), 2e-3);
    const auto ids_of_top = prompt.at("top_ids").get<std::vector<size_t>>();
    const auto top = prompt.at("top_logits").get<std::vector<double>>();
    for (size_t i = 0; i < top.size(); ++i) EXPECT_NEAR(logits.at(ids_of_top[i]), top[i], 2e-3) << i;
    ++sequence;
  }
}

TEST(SmolLm2, GreedyTokensOfTransformers) {
  const std::string folder = model_folder();
  if (!std::filesystem::exists(folder + "/model.safetensors")) GTEST_SKIP() << "no model at " << folder;
  const Json golden = read_json_file(std::string(OCTET_SOURCE_DIR) + "/tests/golden/models/smollm2.json");
  ModelRunner runner(RunnerOptions{.folder = folder, .kernels = KernelSelection::kFastest, .num_sequences = 3});
  int sequence = 0;
  for (const Json& prompt : golden.at("prompts")) {
    const auto expected = prompt.at("greedy").get<std::vector<int32_t>>();
    EXPECT_EQ(runner.generate(prompt.at("input_ids").get<std::vector<int32_t>>(), 8, static_cast<int>(expected.size()),
                              sequence++),
              expected);
  }
}

// Activations in BF16: logits, of a magnitude of 20, within half a unit; the likeliest token is the same where it leads
// by more than that.
TEST(SmolLm2OnGpu, LogitsOfTransformers) {
  const std::string folder = model_folder();
  if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
  if (!std::filesystem::exists(folder + "/model.safetensors")) GTEST_SKIP() << "no model at " << folder;
  const Device gpu = parse_device("cuda");
  make_current(gpu);
  const Json golden = read_json_file(std::string(OCTET_SOURCE_DIR) + "/tests/golden/models/smollm2.json");
  ModelRunner runner(RunnerOptions{
      .folder = folder, .plain_dtype = DType::kBF16, .kv_dtype = DType::kBF16, .device = gpu, .num_sequences = 3});
  int sequence = 0;
  for (const Json& prompt : golden.at("prompts")) {
    const std::vector<float> all = runner.step({Piece{sequence++, prompt.at("input_ids").get<std::vector<int32_t>>()}});
    const std::vector<float> logits(all.end() - runner.vocab_size(), all.end());
    const auto ids = prompt.at("top_ids").get<std::vector<size_t>>();
    const auto top = prompt.at("top_logits").get<std::vector<double>>();
    for (size_t i = 0; i < top.size(); ++i) EXPECT_NEAR(logits.at(ids[i]), top[i], 0.5) << i;
    if (top[0] - top[1] < 1.0) continue;
    EXPECT_EQ(static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()), ids[0]);
  }
}

// Each scheme on the GPU beside itself on the CPU, over the prompts and the CPU's own greedy continuations of them: as
// far apart as BF16 activations, and with FP8 the flips of codes that follow from them, bring them.
class SmolLm2Scheme : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int kNewTokens = 48;
  void SetUp() override {
    if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
    if (!std::filesystem::exists(model_folder() + "/model.safetensors")) {
      GTEST_SKIP() << "no model at " << model_folder();
    }
    make_current(parse_device("cuda"));
  }
  static RunnerOptions options(Device device) {
    return RunnerOptions{.folder = model_folder(),
                         .plain_dtype = DType::kBF16,
                         .kv_dtype = DType::kBF16,
                         .quant = {.quantization = GetParam() == "bf16" ? "" : GetParam()},
                         .kernels = KernelSelection::kFastest,
                         .device = device,
                         .num_sequences = 6,
                         .max_length = 256,
                         .max_step_tokens = 256};
  }
};

INSTANTIATE_TEST_SUITE_P(Schemes, SmolLm2Scheme, testing::Values("bf16", "fp8", "fp8_tensor"));

// KL divergence of two rows of logits, in nats.
double divergence(const float* p, const float* q, int64_t count) {
  const auto log_total = [count](const float* x) {
    const double most = *std::max_element(x, x + count);
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) sum += std::exp(x[i] - most);
    return most + std::log(sum);
  };
  const double of_p = log_total(p), of_q = log_total(q);
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(p[i] - of_p) * ((p[i] - of_p) - (q[i] - of_q));
  return sum;
}

TEST_P(SmolLm2Scheme, OnGpuAsOnCpu) {
  const Json golden = read_json_file(std::string(OCTET_SOURCE_DIR) + "/tests/golden/models/smollm2.json");
  ModelRunner on_cpu(options(Device{})), on_gpu(options(parse_device("cuda")));
  const int64_t v = on_cpu.vocab_size();
  double sum = 0.0;
  int64_t count = 0, same = 0;
  int sequence = 0;
  for (const Json& prompt : golden.at("prompts")) {
    auto ids = prompt.at("input_ids").get<std::vector<int32_t>>();
    const std::vector<int32_t> greedy = on_cpu.generate(ids, 64, kNewTokens, sequence);
    ids.insert(ids.end(), greedy.begin(), greedy.end());
    const std::vector<float> expected = on_cpu.step({Piece{sequence + 1, ids}});
    const std::vector<float> found = on_gpu.step({Piece{sequence + 1, ids}});
    sequence += 2;
    for (int64_t row = 0; row < static_cast<int64_t>(ids.size()); ++row, ++count) {
      const float* e = expected.data() + row * v;
      const float* f = found.data() + row * v;
      sum += divergence(e, f, v);
      const auto chosen = std::max_element(f, f + v) - f;
      const float lead = *std::max_element(e, e + v) - e[chosen];
      same += lead == 0.0f ? 1 : 0;
      EXPECT_LT(lead, 1.5f) << "token " << row << ": the GPU chooses what the CPU finds much less likely";
    }
  }
  RecordProperty("mean_divergence", std::to_string(sum / static_cast<double>(count)));
  RecordProperty("same_choice", std::to_string(static_cast<double>(same) / static_cast<double>(count)));
  EXPECT_LT(sum / static_cast<double>(count), GetParam() == "bf16" ? 0.002 : 0.02);
  EXPECT_GT(static_cast<double>(same) / static_cast<double>(count), GetParam() == "bf16" ? 0.97 : 0.9);
}

}  // namespace
}  // namespace octet
