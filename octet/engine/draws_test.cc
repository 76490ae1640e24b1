// The device's way to draw a token (SampleOp) against the host's (sample_row), on the same logits and numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "octet/kernels/backends.h"
#include "octet/sampling/sampler.h"

namespace octet {
namespace {

SamplingParams params_of(int64_t i) {
  SamplingParams params;
  params.temperature = i % 3 == 0 ? 0.3 : 1.0;
  if (i % 2 == 0) params.top_k = 40;
  if (i % 5 < 3) params.top_p = 0.9;
  if (i % 7 == 0) params.min_p = 0.02;
  return params;
}

TEST(Draws, TheDeviceDrawsTheHostsTokens) {
  constexpr int64_t kRows = 300, kColumns = 2000;
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(kRows * kColumns);
  for (float& logit : logits) logit = std::round(normal(random) * 64.0f) / 64.0f;  // some are equal
  std::vector<RowDraw> draws;
  std::vector<int32_t> expected, found(kRows);
  SamplingScratch scratch;
  for (int64_t t = 0; t < kRows; ++t) {
    const SamplingParams params = params_of(t);
    SamplingState state({.params = params, .eos_token_ids = {}, .prompt_token_ids = {}, .seed = 9, .index = 2});
    ASSERT_TRUE(state.needs_only_a_draw());
    draws.push_back(state.row_draw(t));
    std::vector<float> row(logits.begin() + t * kColumns, logits.begin() + (t + 1) * kColumns);
    expected.push_back(sample(row, state, t, scratch).token_id);
  }
  ThreadPool threads(1);
  const Backend backend(kernel_table(Device{}, KernelSelection::kReferenceOnly), describing_launch(Device{}, threads),
                        DType::kF32);
  backend(SampleOp{
      .index = Tensor(reinterpret_cast<std::byte*>(found.data()), DType::kI32, {kRows}),
      .x = ConstTensor(reinterpret_cast<const std::byte*>(logits.data()), DType::kF32, {kRows, kColumns}),
      .draws = ConstTensor(reinterpret_cast<const std::byte*>(draws.data()), DType::kI32, {kRows, kRowDrawWords})});
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace octet
