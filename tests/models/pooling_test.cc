// Pooled hidden states through Llm, in chunks and with the prefix cache, against what transformers' hidden states after
// the final norm (scripts/make_golden.py variants) give.
#include <gtest/gtest.h>

#include <cmath>
#include <future>

#include "model_runner.h"
#include "octet/api/llm.h"

namespace octet {
namespace {

constexpr double kTolerance = 1e-4;  // of the largest value: F32 against F32 in another order of summation

std::vector<float> pooled(Llm& llm, const std::vector<int32_t>& ids, PoolingType type) {
  std::promise<std::vector<float>> result;
  const auto take = [&](const RequestOutput& output, std::span<const OutputDelta>) {
    if (output.finished) result.set_value(output.pooled);
  };
  llm.submit(Prompt::of_token_ids(ids), {.max_tokens = 0}, take, {.pooling = type});
  return result.get_future().get();
}

TEST(Pooling, IsThatOfTransformersHiddenStates) {
  for (const std::string variant : {"llama2", "qwen3", "smollm2"}) {
    const Recording golden(variant, "golden.safetensors");
    const auto ids = golden.integers("input_ids");
    const std::vector<float> hidden = golden.floats("hidden.norm");
    const size_t size = hidden.size() / ids.size();
    std::vector<double> mean(size), last(size);
    for (size_t i = 0; i < hidden.size(); ++i) mean[i % size] += hidden[i] / static_cast<double>(ids.size());
    for (size_t i = 0; i < size; ++i) last[i] = hidden[hidden.size() - size + i];
    LlmOptions options;
    options.model = golden_folder(variant);
    options.tokenizing = LlmOptions::Tokenizing::kOff;
    options.engine.device = "cpu";
    options.engine.kv_cache_dtype = "float32";
    options.engine.block_size = 4;
    options.engine.max_num_batched_tokens = 13;
    options.engine.kv_cache_memory_bytes = int64_t{1} << 20;
    options.engine.num_threads = 1;
    Llm llm(options);
    for (int round = 0; round < 2; ++round) {  // the second time the cache holds the prompt
      for (const PoolingType type : {PoolingType::kMean, PoolingType::kLast}) {
        const std::vector<double>& expected = type == PoolingType::kMean ? mean : last;
        double largest = 0.0;
        for (const double x : expected) largest = std::max(largest, std::abs(x));
        const std::vector<float> found = pooled(llm, ids, type);
        ASSERT_EQ(found.size(), size);
        for (size_t i = 0; i < size; ++i) EXPECT_NEAR(found[i], expected[i], kTolerance * largest) << variant;
      }
    }
    EXPECT_THROW(llm.submit(Prompt::of_token_ids(ids), {.max_tokens = 1}, nullptr, {.pooling = PoolingType::kMean}),
                 Error);
  }
}

}  // namespace
}  // namespace octet
