// Pooled hidden states through Llm, in chunks and with the prefix cache, against what transformers' hidden states after
// the final norm (scripts/make_golden.py variants) give.
#include <gtest/gtest.h>

#include <cmath>
#include <future>

#include "model_runner.h"
#include "octet/api/llm.h"
#include "octet/device/device.h"

namespace octet {
namespace {

constexpr double kTolerance = 1e-4;          // of the largest value: F32 against F32 in another order of summation
constexpr double kToleranceBf16 = 1.0 / 16;  // everything in BF16, as of logits on a GPU

std::vector<float> pooled(Llm& llm, const std::vector<int32_t>& ids, PoolingType type) {
  std::promise<std::vector<float>> result;
  const auto take = [&](const RequestOutput& output, std::span<const OutputDelta>) {
    if (output.finished) result.set_value(output.pooled);
  };
  llm.submit(Prompt::of_token_ids(ids), {.max_tokens = 0}, take, {.pooling = type});
  return result.get_future().get();
}

// Of rows [rows, size].
std::vector<double> expected(std::span<const float> hidden, size_t rows, PoolingType type) {
  const size_t size = hidden.size() / rows;
  std::vector<double> vector(size);
  for (size_t i = 0; i < hidden.size(); ++i) {
    if (type == PoolingType::kMean) vector[i % size] += static_cast<double>(hidden[i]) / static_cast<double>(rows);
    if (type == PoolingType::kLast && i >= hidden.size() - size) vector[i % size] = static_cast<double>(hidden[i]);
  }
  return vector;
}

LlmOptions options_for(const std::string& variant) {
  LlmOptions options;
  options.model = golden_folder(variant);
  options.tokenizing = LlmOptions::Tokenizing::kOff;
  options.engine.device = "cpu";
  options.engine.kv_cache_dtype = "float32";
  options.engine.block_size = 4;
  options.engine.max_num_batched_tokens = 13;
  options.engine.kv_cache_memory_bytes = int64_t{1} << 20;
  options.engine.num_threads = 1;
  return options;
}

// What is true of a prompt is of its beginnings: no position sees a later one.
void check(const std::string& variant, Llm& llm, double tolerance) {
  const Recording golden(variant, "golden.safetensors");
  const std::vector<int32_t> all = golden.integers("input_ids");
  const std::vector<float> hidden = golden.floats("hidden.norm");
  const size_t size = hidden.size() / all.size();
  for (const size_t length : {size_t{1}, size_t{17}, all.size(), all.size()}) {  // then the cache holds the prompt
    const std::vector<int32_t> ids(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(length));
    for (const PoolingType type : {PoolingType::kMean, PoolingType::kLast}) {
      const std::vector<double> theirs = expected(std::span(hidden).first(length * size), length, type);
      double largest = 0.0;
      for (const double x : theirs) largest = std::max(largest, std::abs(x));
      const std::vector<float> ours = pooled(llm, ids, type);
      ASSERT_EQ(ours.size(), size);
      for (size_t i = 0; i < size; ++i)
        EXPECT_NEAR(ours[i], theirs[i], tolerance * largest) << variant << " " << length;
    }
  }
}

TEST(Pooling, IsThatOfTransformersHiddenStates) {
  for (const std::string variant : {"llama2", "qwen3", "smollm2"}) {
    Llm llm(options_for(variant));
    check(variant, llm, kTolerance);
    EXPECT_THROW(llm.submit(Prompt::of_token_ids({1}), {.max_tokens = 1}, nullptr, {.pooling = PoolingType::kMean}),
                 Error);
  }
}

// Rows come from the device; recorded steps, which keep none, are not taken for prompts of one token.
TEST(GpuPooling, IsThatOfTransformersHiddenStates) {
  if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
  for (const std::string variant : {"llama2", "qwen3"}) {
    LlmOptions options = options_for(variant);
    options.engine.device = "cuda";
    options.engine.kv_cache_dtype = "auto";
    Llm llm(options);
    check(variant, llm, kToleranceBf16);
  }
}

}  // namespace
}  // namespace octet
