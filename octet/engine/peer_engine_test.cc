// Engines whose ranks are GPUs of this host; skipped where there are fewer than two.
#include <gmock/gmock.h>

#include "octet/base/error.h"
#include "octet/engine/client_for_test.h"

namespace octet {
namespace {

class PeerEngine : public testing::Test {
 protected:
  void SetUp() override {
    if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
    try {
      parse_device("cuda:1");
    } catch (const Error&) {
      GTEST_SKIP() << "fewer than two GPUs";
    }
  }
  EngineOptions options(int32_t ranks) const {
    EngineOptions options = model_.options();
    options.device = "cuda";
    options.block_size = 16;
    options.tensor_parallel_size = ranks;
    options.gpu_memory_utilization = 0.3;
    return options;
  }
  TinyModel model_;
};

std::map<std::string, Answer> run(const EngineOptions& options, std::vector<Request> requests) {
  Engine engine(options);
  Client client;
  for (Request& request : requests) client.submit(engine, std::move(request));
  std::map<std::string, Answer> answers = client.wait();
  EXPECT_EQ(engine.fault(), std::nullopt);
  return answers;
}

// Two ranks add BF16 shares where one adds in F32, so that close calls may go the other way. One rank is asked how
// likely each token is that two ranks chose: nearly the likeliest, and nearly as likely as they say.
void expect_choices_of_one_rank(const EngineOptions& one, const EngineOptions& two) {
  constexpr double kClose = 0.06;  // of log-probabilities: some 2^-6 of logits of a few units
  constexpr int32_t kTokens = 40;
  std::vector<Request> requests;
  for (int32_t i = 0; i < 8; ++i) {
    requests.push_back(
        make_request(std::to_string(i), prompt_of(5 + 11 * i, i), {.temperature = 0.0, .max_tokens = kTokens}));
  }
  const std::map<std::string, Answer> chosen = run(two, requests);
  std::vector<Request> scored;
  for (const Request& request : requests) {
    const Answer& answer = chosen.at(request.id);
    ASSERT_EQ(answer.reason, FinishReason::kLength) << answer.error;
    std::vector<int32_t> all = request.prompt_token_ids;
    all.insert(all.end(), answer.tokens.at(0).begin(), answer.tokens.at(0).end());
    SamplingParams sampling{.temperature = 0.0, .max_tokens = 1};
    sampling.prompt_logprobs = 1;
    scored.push_back(make_request(request.id, std::move(all), sampling));
  }
  const std::map<std::string, Answer> scores[2] = {run(one, scored), run(two, scored)};
  int num_likeliest = 0;
  for (const Request& request : requests) {
    const auto& of_one = scores[0].at(request.id).prompt_logprobs;
    const auto& of_two = scores[1].at(request.id).prompt_logprobs;
    ASSERT_EQ(of_one.size(), request.prompt_token_ids.size() + kTokens);
    for (size_t i = 1; i < of_one.size(); ++i) {
      ASSERT_NEAR(of_one[i].front().logprob, of_two[i].front().logprob, kClose) << request.id << " " << i;
      if (i < request.prompt_token_ids.size()) continue;
      ASSERT_GT(of_one[i].front().logprob, of_one[i].back().logprob - kClose) << request.id << " " << i;
      num_likeliest += of_one[i].front().rank == 1;
    }
  }
  EXPECT_GT(num_likeliest, 8 * kTokens * 9 / 10);
}

TEST_F(PeerEngine, TwoGpusChooseTheTokensOfOne) { expect_choices_of_one_rank(options(1), options(2)); }

TEST_F(PeerEngine, TwoGpusChooseTheTokensOfOneInFp8) {
  EngineOptions one = options(1), two = options(2);
  for (EngineOptions* options : {&one, &two}) options->kv_cache_dtype = "fp8";
  expect_choices_of_one_rank(one, two);
}

// Recorded steps and steps that are not, planned ahead and not, give the same bits.
TEST_F(PeerEngine, TokensDoNotDependOnHowStepsAreRun) {
  const Tokens expected = run_together(options(2));
  EngineOptions eager = options(2);
  eager.enforce_eager = true;
  eager.async_scheduling = false;
  EngineOptions behind = options(2);
  behind.async_scheduling = false;
  EXPECT_EQ(run_together(behind), expected);
  eager.deterministic = true;
  EngineOptions deterministic = options(2);
  deterministic.deterministic = true;
  EXPECT_EQ(run_together(eager), run_together(deterministic));
}

// Requests of which the host chooses some tokens and the GPUs others: every rank goes on with rank 0's.
TEST_F(PeerEngine, RanksAgreeOnWhoChooses) {
  std::vector<Request> requests;
  for (int32_t i = 0; i < 6; ++i) {
    SamplingParams sampling{.temperature = 0.8, .seed = i, .max_tokens = 30, .min_tokens = 5 * i};
    sampling.stop_token_ids = {1000};
    requests.push_back(make_request(std::to_string(i), prompt_of(9, i), sampling));
  }
  std::vector<Request> by_host = requests;
  for (Request& request : by_host) request.sampling.logprobs = 1;
  const auto tokens_of = [&](std::vector<Request> list) {
    std::map<std::string, std::vector<int32_t>> tokens;
    for (auto& [id, answer] : run(options(2), std::move(list))) tokens[id] = answer.tokens[0];
    return tokens;
  };
  EXPECT_EQ(tokens_of(requests), tokens_of(by_host));
}

TEST_F(PeerEngine, ReportsAllGpus) {
  const Engine one(options(1)), two(options(2));
  EXPECT_THAT(two.report().device, testing::StartsWith("2 x "));
  EXPECT_THAT(two.report().device, testing::HasSubstr("cuda:0 to cuda:1"));
  EXPECT_GT(two.report().num_graphs, 0);
  EXPECT_EQ(two.report().kv_bytes_per_token, one.report().kv_bytes_per_token);
}

TEST_F(PeerEngine, MemoryThatDoesNotSufficeIsNamedByRank) {
  EngineOptions much = options(2);
  much.kv_cache_memory_bytes = int64_t{1} << 40;
  try {
    Engine engine(much);
    ADD_FAILURE() << "1 TiB fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMemory);
    EXPECT_THAT(error.what(), testing::HasSubstr("memory of rank 0 (cuda:0): 512."));
  }
}

}  // namespace
}  // namespace octet
