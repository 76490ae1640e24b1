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

}  // namespace
}  // namespace octet
