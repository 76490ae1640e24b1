#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/error.h"
#include "octet/evaluate/kl_divergence.h"
#include "octet/evaluate/score.h"
#include "octet/evaluate/windows.h"

namespace octet {
namespace {

TEST(Windows, WithoutOverlapAndWithoutTheShortTail) {
  std::vector<int32_t> ids(10);
  for (int i = 0; i < 10; ++i) ids[static_cast<size_t>(i)] = i;
  const auto windows = cut_windows(ids, 4, 0);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[1], (std::vector<int32_t>{4, 5, 6, 7}));
  EXPECT_EQ(cut_windows(ids, 4, 1).size(), 1u);
  EXPECT_EQ(cut_windows(ids, 100, 0).front().size(), 10u);
  EXPECT_THROW(cut_windows(ids, 1, 0), Error);
}

TEST(LogSumExp, LargeValuesDoNotOverflow) {
  const std::vector<float> logits = {1000.0f, 1000.0f};
  EXPECT_NEAR(log_sum_exp(logits), 1000.0 + std::log(2.0), 1e-9);
}

TEST(RowDivergence, KnownDistributions) {
  // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - (ln 3) / 2, by hand.
  const std::vector<float> p = {0.0f, 0.0f};
  const std::vector<float> q = {0.0f, std::log(3.0f)};
  EXPECT_NEAR(row_divergence(p, q).kl, std::log(2.0) - 0.5 * std::log(3.0), 1e-7);
  EXPECT_FALSE(row_divergence(p, q).same_top1);
  EXPECT_NEAR(row_divergence(q, q).kl, 0.0, 1e-12);
  EXPECT_TRUE(row_divergence(q, q).same_top1);
}

}  // namespace
}  // namespace octet
