#include "octet/sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "octet/base/error.h"
#include "octet/sampling/philox.h"

namespace octet {
namespace {

// Random123's known-answer vectors of philox4x32-10.
TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, ~uint64_t{0}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822ULL),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

std::vector<float> random_row(std::mt19937& random, size_t size, float spread = 3.0f) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> row(size);
  for (float& x : row) x = normal(random);
  return row;
}

TEST(RowOps, AgreeWithPlainLoops) {
  std::mt19937 random(1);
  for (size_t size : {1u, 15u, 16u, 63u, 64u, 65u, 1000u, 5003u}) {
    const std::vector<float> row = random_row(random, size);
    EXPECT_EQ(row_max(row), *std::max_element(row.begin(), row.end()));
    EXPECT_EQ(row_argmax(row), std::max_element(row.begin(), row.end()) - row.begin());
    EXPECT_EQ(row_count_greater(row, 0.5f), std::count_if(row.begin(), row.end(), [](float x) { return x > 0.5f; }));
    double sum = 0.0;
    for (float x : row) sum += std::exp(static_cast<double>(x));
    EXPECT_NEAR(row_log_sum_exp(row, row_max(row)), std::log(sum), 1e-6);
  }
}

TEST(RowOps, ArgmaxTakesTheFirstOfEquals) {
  std::vector<float> row(3000, -1.0f);
  row[2000] = row[2500] = row[1500] = 7.0f;
  EXPECT_EQ(row_argmax(row), 1500);
}

TEST(RowOps, FastExpIsAccurate) {
  for (double x = -86.9; x <= 0.0; x += 0.00137) {
    const auto f = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(f));
    EXPECT_LT(std::abs(fast_exp(f) - exact), 2e-7 * exact) << x;
  }
  EXPECT_EQ(fast_exp(0.0f), 1.0f);
  EXPECT_EQ(fast_exp(-200.0f), 0.0f);
  EXPECT_EQ(fast_exp(kMinusInfinity), 0.0f);
}

TEST(RowOps, FindsEveryKindOfBrokenValueAnywhere) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (size_t size : {1u, 16u, 37u}) {
    for (size_t i = 0; i < size; ++i) {
      for (float bad : {nan, -nan, infinity}) {
        std::vector<float> row(size, -2.0f);
        row[i] = bad;
        EXPECT_TRUE(row_is_broken(row));
        row[i] = std::numeric_limits<float>::max();
        EXPECT_FALSE(row_is_broken(row));
        row[i] = -infinity;
        EXPECT_EQ(row_is_broken(row), size == 1);
      }
    }
  }
}

TEST(Selection, TopKSortedIsASort) {
  std::mt19937 random(2);
  SamplingScratch scratch;
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<float> row = random_row(random, 1 + random() % 3000);
    for (float& x : row) x = std::round(x * 8.0f);  // many equal values
    std::vector<int32_t> ids(row.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(),
                     [&](int32_t a, int32_t b) { return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)]; });
    for (int64_t k : {int64_t{0}, int64_t{1}, int64_t{5}, int64_t{200}, int64_t{4000}}) {
      std::vector<Candidate> found;
      top_k_sorted(row, k, scratch, found);
      ASSERT_EQ(found.size(), std::min(static_cast<size_t>(k), row.size()));
      for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].token_id, ids[i]);
    }
  }
}

// The probabilities that sample_row should draw from, in double precision and by sorting.
std::map<int32_t, double> oracle(const std::vector<float>& row, const SelectionLimits& limits) {
  std::vector<std::pair<double, int32_t>> order;  // (-logit, id)
  for (size_t i = 0; i < row.size(); ++i) {
    if (std::isfinite(row[i])) order.emplace_back(-static_cast<double>(row[i]), static_cast<int32_t>(i));
  }
  std::sort(order.begin(), order.end());
  const double best = -order.front().first;
  auto weight = [&](double minus_logit) { return std::exp((-minus_logit - best) / limits.temperature); };
  if (limits.min_p > 0) std::erase_if(order, [&](const auto& x) { return weight(x.first) < limits.min_p; });
  if (limits.top_k > 0 && limits.top_k < static_cast<int64_t>(order.size())) {
    const double kth = order[static_cast<size_t>(limits.top_k - 1)].first;
    std::erase_if(order, [&](const auto& x) { return x.first > kth; });
  }
  double total = 0.0;
  for (const auto& x : order) total += weight(x.first);
  if (limits.top_p < 1.0) {
    double sum = 0.0;
    size_t count = 0;
    while (count < order.size() && sum < limits.top_p * total) sum += weight(order[count++].first);
    order.resize(count);
    total = sum;
  }
  std::map<int32_t, double> result;
  for (const auto& x : order) result[x.second] = weight(x.first) / total;
  return result;
}

TEST(Selection, DrawsExactlyTheOraclesCumulativeDistribution) {
  std::mt19937 random(3);
  SamplingScratch scratch;
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int trial = 0; trial < 300; ++trial) {
    const float spread = std::array{0.2f, 1.0f, 4.0f}[random() % 3];
    std::vector<float> row = random_row(random, 2 + random() % 2000, spread);
    if (trial % 3 == 0) row[random() % row.size()] = kMinusInfinity;
    SelectionLimits limits;
    limits.temperature = std::array{0.01f, 0.7f, 1.0f, 2.0f}[random() % 4];
    limits.top_k = std::array{0, 1, 7, 50, 1500}[random() % 5];
    limits.top_p = std::array{1.0, 0.95, 0.5, 0.01}[random() % 4];
    limits.min_p = std::array{0.0, 0.0, 0.05, 1.0}[random() % 4];
    const auto expected = oracle(row, limits);
    for (int draw = 0; draw < 10; ++draw) {
      const double u = uniform(random);
      double sum = 0.0;
      std::set<int32_t> accepted;  // the oracle's token, and its neighbour where rounding may decide
      for (const auto& [id, p] : expected) {
        if (u >= sum - 2e-6 && u < sum + p + 2e-6) accepted.insert(id);
        sum += p;
      }
      EXPECT_TRUE(accepted.contains(sample_row(row, limits, u, scratch)))
          << "trial " << trial << " u " << u << " k " << limits.top_k << " p " << limits.top_p << " min_p "
          << limits.min_p;
    }
  }
}

struct Case {
  SamplingParams params;
  std::vector<int32_t> eos;
  std::vector<int32_t> prompt;
  uint64_t seed = 0;
  int32_t index = 0;
  SamplingState state() const {
    return SamplingState(
        {.params = params, .eos_token_ids = eos, .prompt_token_ids = prompt, .seed = seed, .index = index});
  }
};

int32_t greedy_token(std::vector<float> row, SamplingState& state) {
  SamplingScratch scratch;
  return sample(row, state, 0, scratch).token_id;
}

// Chi-square of 4000 draws at consecutive positions: the limit is the 99.9 % quantile for 9 degrees of freedom.
TEST(Sampler, DrawsFollowTheSoftmax) {
  std::mt19937 random(4);
  SamplingScratch scratch;
  for (uint64_t seed : {1u, 2u, 3u}) {
    const std::vector<float> row = random_row(random, 10, 1.0f);
    Case c{.params = {.temperature = 0.8}, .eos = {}, .prompt = {}, .seed = seed};
    SamplingState state = c.state();
    std::vector<int> counts(row.size(), 0);
    constexpr int kDraws = 4000;
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> copy = row;
      ++counts[static_cast<size_t>(sample(copy, state, i, scratch).token_id)];
    }
    double chi_square = 0.0;
    for (const auto& [id, p] : oracle(row, {.temperature = 0.8f})) {
      const double expected = p * kDraws;
      chi_square +=
          (counts[static_cast<size_t>(id)] - expected) * (counts[static_cast<size_t>(id)] - expected) / expected;
    }
    EXPECT_LT(chi_square, 27.9);
  }
}

TEST(Sampler, TokensDependOnSeedIndexAndPositionOnly) {
  std::mt19937 random(5);
  SamplingScratch scratch;
  const std::vector<float> row = random_row(random, 5000, 0.1f);
  auto token = [&](uint64_t seed, int32_t index, int64_t position) {
    SamplingState state = Case{.params = {}, .eos = {}, .prompt = {}, .seed = seed, .index = index}.state();
    std::vector<float> copy = row;
    return sample(copy, state, position, scratch).token_id;
  };
  EXPECT_EQ(token(1, 0, 5), token(1, 0, 5));
  EXPECT_NE(token(1, 0, 5), token(2, 0, 5));
  EXPECT_NE(token(1, 0, 5), token(1, 1, 5));
  EXPECT_NE(token(1, 0, 5), token(1, 0, 6));
}

TEST(Sampler, TinyTemperatureIsRaisedAndZeroIsGreedy) {
  Case tiny{.params = {.temperature = 1e-4}, .eos = {}, .prompt = {}};
  EXPECT_FLOAT_EQ(tiny.state().limits().temperature, 0.01f);
  EXPECT_FALSE(tiny.state().greedy());
  EXPECT_TRUE((Case{.params = {.temperature = 0.0}, .eos = {}, .prompt = {}}.state().greedy()));
}

TEST(Sampler, PenaltiesAreThoseOfHuggingFaceAndOpenAi) {
  Case c{.params = {.temperature = 0.0, .repetition_penalty = 2.0, .presence_penalty = 0.25, .frequency_penalty = 0.5},
         .eos = {},
         .prompt = {0, 1}};
  SamplingState state = c.state();
  state.accept(1);
  state.accept(2);
  state.accept(2);
  std::vector<float> row = {3.0f, -3.0f, 8.0f, 5.0f};
  SamplingScratch scratch;
  state.adjust(row, scratch);
  EXPECT_FLOAT_EQ(row[0], 1.5f);                     // prompt: repetition only
  EXPECT_FLOAT_EQ(row[1], -6.0f - 0.5f - 0.25f);     // prompt and one output
  EXPECT_FLOAT_EQ(row[2], 4.0f - 2 * 0.5f - 0.25f);  // two outputs
  EXPECT_FLOAT_EQ(row[3], 5.0f);
}

TEST(Sampler, MasksAndBias) {
  const std::vector<float> row = {1.0f, 5.0f, 3.0f, 2.0f};
  SamplingState allowed =
      Case{.params = {.temperature = 0.0, .allowed_token_ids = {3, 0, 3}}, .eos = {}, .prompt = {}}.state();
  EXPECT_EQ(greedy_token(row, allowed), 3);
  SamplingState biased =
      Case{.params = {.temperature = 0.0, .logit_bias = {{0, 1e9f}, {1, -50.0f}}}, .eos = {}, .prompt = {}}.state();
  EXPECT_EQ(greedy_token(row, biased), 0);
  SamplingState least =
      Case{.params = {.temperature = 0.0, .stop_token_ids = {2}, .min_tokens = 2}, .eos = {1}, .prompt = {}}.state();
  EXPECT_EQ(greedy_token(row, least), 3);
  EXPECT_EQ(greedy_token(row, least), 3);
  EXPECT_EQ(greedy_token(row, least), 1);
}

TEST(Sampler, NamesWhatCannotBeSampled) {
  SamplingScratch scratch;
  SamplingState none =
      Case{.params = {.temperature = 0.0, .min_tokens = 1, .allowed_token_ids = {1}}, .eos = {1}, .prompt = {}}.state();
  std::vector<float> row = {1.0f, 2.0f};
  EXPECT_EQ(sample(row, none, 0, scratch).outcome, SampleOutcome::kNothingAllowed);
  row = {1.0f, std::numeric_limits<float>::quiet_NaN()};
  SamplingState plain = Case{.params = {}, .eos = {}, .prompt = {}}.state();
  EXPECT_EQ(sample(row, plain, 0, scratch).outcome, SampleOutcome::kBrokenLogits);
}

TEST(Sampler, LogprobsAreOfTheRawDistribution) {
  std::mt19937 random(6);
  SamplingScratch scratch;
  const std::vector<float> raw = random_row(random, 700);
  double sum = 0.0;
  for (float x : raw) sum += std::exp(static_cast<double>(x));
  std::vector<size_t> order(raw.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return raw[a] > raw[b]; });
  for (int32_t count : {0, 5, -1}) {
    SamplingState state = Case{
        .params = {.temperature = 0.3, .logprobs = count, .logit_bias = {{123, 100.0f}}},
        .eos = {},
        .prompt = {}}.state();
    std::vector<float> row = raw;
    const Sampled sampled = sample(row, state, 0, scratch);
    ASSERT_EQ(sampled.token_id, 123);
    ASSERT_EQ(sampled.logprobs.size(), 1 + (count < 0 ? raw.size() : static_cast<size_t>(count)));
    EXPECT_EQ(sampled.logprobs[0].rank,
              1 + std::count_if(raw.begin(), raw.end(), [&](float x) { return x > raw[123]; }));
    EXPECT_NEAR(sampled.logprobs[0].logprob, raw[123] - std::log(sum), 1e-5);
    for (size_t i = 1; i < sampled.logprobs.size(); ++i) {
      EXPECT_EQ(sampled.logprobs[i].token_id, static_cast<int32_t>(order[i - 1]));
      EXPECT_EQ(sampled.logprobs[i].rank, static_cast<int32_t>(i));
      EXPECT_NEAR(sampled.logprobs[i].logprob, raw[order[i - 1]] - std::log(sum), 1e-5);
    }
  }
}

TEST(SamplingParams, NamesTheWrongField) {
  auto error_of = [](const SamplingParams& params) -> std::string {
    try {
      params.validate(100);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalid);
      return error.what();
    }
    return "";
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(error_of({}), "");
  EXPECT_EQ(error_of({.temperature = 0.0, .max_tokens = 0}), "");
  EXPECT_EQ(error_of({.top_k = -1}), "");
  EXPECT_TRUE(error_of({.n = 0}).starts_with("n:"));
  EXPECT_TRUE(error_of({.n = 1000}).starts_with("n:"));
  EXPECT_TRUE(error_of({.n = 2, .temperature = 0.0}).starts_with("n:"));
  EXPECT_TRUE(error_of({.temperature = -0.1}).starts_with("temperature:"));
  EXPECT_TRUE(error_of({.temperature = nan}).starts_with("temperature:"));
  EXPECT_TRUE(error_of({.top_p = 0.0}).starts_with("top_p:"));
  EXPECT_TRUE(error_of({.top_p = 1.1}).starts_with("top_p:"));
  EXPECT_TRUE(error_of({.top_k = -2}).starts_with("top_k:"));
  EXPECT_TRUE(error_of({.min_p = nan}).starts_with("min_p:"));
  EXPECT_TRUE(error_of({.repetition_penalty = 0.0}).starts_with("repetition_penalty:"));
  EXPECT_TRUE(error_of({.presence_penalty = 2.5}).starts_with("presence_penalty:"));
  EXPECT_TRUE(error_of({.frequency_penalty = -2.5}).starts_with("frequency_penalty:"));
  EXPECT_TRUE(error_of({.stop_token_ids = {100}}).starts_with("stop_token_ids:"));
  EXPECT_TRUE(error_of({.max_tokens = -1}).starts_with("max_tokens:"));
  EXPECT_TRUE(error_of({.max_tokens = 3, .min_tokens = 4}).starts_with("min_tokens:"));
  EXPECT_TRUE(error_of({.logprobs = 21}).starts_with("logprobs:"));
  EXPECT_TRUE(error_of({.prompt_logprobs = -2}).starts_with("prompt_logprobs:"));
  EXPECT_TRUE(error_of({.logit_bias = {{-1, 1.0f}}}).starts_with("logit_bias:"));
  EXPECT_TRUE(error_of({.allowed_token_ids = {5, -1}}).starts_with("allowed_token_ids:"));
}

// Prints times; asserts nothing about them.
TEST(Sampler, TimesOfARow) {
  std::mt19937 random(7);
  SamplingScratch scratch;
  const std::vector<float> row = random_row(random, 49152, 2.5f);
  std::vector<float> copy = row;
  auto time = [&](const char* what, const SamplingParams& params) {
    SamplingState state = Case{.params = params, .eos = {}, .prompt = {}}.state();
    constexpr int kRounds = 50;
    int64_t sum = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRounds; ++i) sum += sample(copy, state, i, scratch).token_id;
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    fmt::print("{}: {:.1f} us per row of {} (token sum {})\n", what, took.count() / kRounds, row.size(), sum);
  };
  time("greedy", {.temperature = 0.0});
  time("temperature 1", {});
  time("top_p 0.95", {.top_p = 0.95});
  time("top_k 50, top_p 0.95", {.top_p = 0.95, .top_k = 50});
  time("min_p 0.05", {.min_p = 0.05});
  time("greedy, logprobs 5", {.temperature = 0.0, .logprobs = 5});
  EXPECT_EQ(copy, row);
}

}  // namespace
}  // namespace octet
