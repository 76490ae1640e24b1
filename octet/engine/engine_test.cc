#include "octet/engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "octet/base/error.h"
#include "octet/engine/client_for_test.h"
#include "octet/engine/same_tokens_for_test.h"

namespace octet {
namespace {

class EngineTest : public testing::Test {
 protected:
  TinyModel model_;
};

TEST(EngineOptionsTest, StepsAreLongOfflineOnAGpuUnlessTheCallerSaysOtherwise) {
  constexpr Device kGpu{DeviceKind::kCuda, 0};
  EngineOptions options;
  EXPECT_EQ(step_tokens(options, kGpu), 2048);
  options.workload = EngineOptions::Workload::kOffline;
  EXPECT_EQ(step_tokens(options, kGpu), 8192);
  EXPECT_EQ(step_tokens(options, Device{}), 2048);
  options.max_num_batched_tokens = 512;
  EXPECT_EQ(step_tokens(options, kGpu), 512);
}

TEST_F(EngineTest, TokensDoNotDependOnHowStepsAreMade) { expect_tokens_however_steps_are_made(model_.options()); }

TEST_F(EngineTest, PreemptionChangesNoToken) { expect_tokens_despite_preemption(model_.options()); }

TEST_F(EngineTest, PreemptsWhenTheCacheIsSmall) {
  EngineOptions tight = model_.options();
  tight.max_model_len = 56;
  tight.async_scheduling = false;
  int64_t bytes_per_token = Engine(tight).report().kv_bytes_per_token;
  tight.kv_cache_memory_bytes = 14 * 4 * bytes_per_token;
  Engine engine(tight);
  EXPECT_EQ(engine.report().num_kv_blocks, 14);
  Client client;
  for (int32_t i = 0; i < 4; ++i)
    client.submit(engine, make_request(std::to_string(i), prompt_of(10, i), {.temperature = 0.0, .max_tokens = 40}));
  client.wait();
  EXPECT_GT(engine.metrics().num_preemptions, 0);
  EXPECT_EQ(engine.metrics().generated_tokens, 160);
}

TEST_F(EngineTest, TwoRanksGiveTheTokensOfOne) {
  EngineOptions one = model_.options();
  EngineOptions two = one;
  two.tensor_parallel_size = 2;
  std::map<std::string, std::vector<int32_t>> tokens[2];
  for (const EngineOptions* options : {&one, &two}) {
    Engine engine(*options);
    Client client;
    for (int32_t i = 0; i < 4; ++i)
      client.submit(engine, make_request(std::to_string(i), prompt_of(12, i), {.temperature = 0.0, .max_tokens = 12}));
    for (auto& [id, answer] : client.wait()) tokens[options == &two][id] = answer.tokens[0];
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(tokens[0].size(), 4u);
}

TEST_F(EngineTest, CachedPromptsGiveTheSameTokensAndLogprobs) {
  Engine engine(model_.options());
  const SamplingParams sampling{.temperature = 0.0, .max_tokens = 6, .logprobs = 2};
  Answer answers[2];
  for (Answer& answer : answers) {
    Client client;
    client.submit(engine, make_request("a", prompt_of(33, 1), sampling));
    answer = client.wait()["a"];
  }
  EXPECT_EQ(answers[0].num_cached_tokens, 0);
  EXPECT_EQ(answers[1].num_cached_tokens, 32);
  EXPECT_EQ(answers[0].tokens, answers[1].tokens);
  ASSERT_EQ(answers[0].logprobs.size(), 6u);
  double sum = 0.0;
  for (size_t i = 0; i < 6; ++i) {
    ASSERT_EQ(answers[0].logprobs[i].size(), 3u);
    EXPECT_EQ(answers[0].logprobs[i][0].logprob, answers[1].logprobs[i][0].logprob);
    EXPECT_EQ(answers[0].logprobs[i][0].token_id, answers[0].tokens[0][i]);
    EXPECT_EQ(answers[0].logprobs[i][0].rank, 1);
    sum += answers[0].logprobs[i][0].logprob;
  }
  EXPECT_NEAR(answers[0].cumulative_logprob, sum, 1e-6);
  EXPECT_EQ(engine.metrics().cached_prompt_tokens, 32);
}

// Rows that on_logits receives are the oracle of prompt_logprobs: both paths, chunked and not.
TEST_F(EngineTest, ScoresPrompts) {
  EngineOptions options = model_.options();
  options.max_num_batched_tokens = 13;
  Engine engine(options);
  const std::vector<int32_t> prompt = prompt_of(90, 2);  // more rows than one slice, several chunks
  for (int round = 0; round < 2; ++round) {              // the second time the cache holds the prompt
    std::map<int64_t, std::vector<float>> rows;
    Request request = make_request("a", prompt, {.temperature = 0.0, .max_tokens = 0, .prompt_logprobs = 1});
    request.row_scope = Request::RowScope::kAll;
    request.on_logits = [&](int64_t position, std::span<const float> logits) {
      rows[position].assign(logits.begin(), logits.end());
    };
    Client client;
    client.submit(engine, std::move(request));
    const Answer answer = client.wait()["a"];
    EXPECT_EQ(answer.reason, FinishReason::kLength);
    EXPECT_TRUE(answer.tokens.empty() || answer.tokens.at(0).empty());
    ASSERT_EQ(rows.size(), prompt.size());
    ASSERT_EQ(answer.prompt_logprobs.size(), prompt.size());
    EXPECT_TRUE(answer.prompt_logprobs[0].empty());
    for (size_t i = 1; i < prompt.size(); ++i) {
      const std::vector<float>& row = rows.at(static_cast<int64_t>(i) - 1);
      double sum = 0.0;
      for (float x : row) sum += std::exp(static_cast<double>(x));
      ASSERT_EQ(answer.prompt_logprobs[i].size(), 2u);
      EXPECT_EQ(answer.prompt_logprobs[i][0].token_id, prompt[i]);
      EXPECT_NEAR(answer.prompt_logprobs[i][0].logprob, row[static_cast<size_t>(prompt[i])] - std::log(sum), 1e-5);
      EXPECT_EQ(answer.prompt_logprobs[i][1].token_id, std::max_element(row.begin(), row.end()) - row.begin());
    }
  }
}

// Every position once and in order, in chunks and from a cache that holds the prompt.
TEST_F(EngineTest, ShowsHiddenStatesOfPrompts) {
  std::vector<float> whole;
  for (const int32_t step_tokens : {64, 7}) {
    EngineOptions options = model_.options();
    options.max_num_batched_tokens = step_tokens;
    Engine engine(options);
    for (int round = 0; round < 2; ++round) {
      std::vector<int64_t> positions;
      std::vector<float> rows;
      Request request = make_request("a", prompt_of(30, 2), {.temperature = 0.0, .max_tokens = 0});
      request.row_scope = Request::RowScope::kAll;
      request.on_hidden = [&](int64_t position, std::span<const float> hidden) {
        positions.push_back(position);
        rows.insert(rows.end(), hidden.begin(), hidden.end());
      };
      Client client;
      client.submit(engine, std::move(request));
      const Answer answer = client.wait()["a"];
      EXPECT_EQ(answer.reason, FinishReason::kLength);
      EXPECT_EQ(answer.num_cached_tokens, 0);
      std::vector<int64_t> expected(30);
      std::iota(expected.begin(), expected.end(), 0);
      EXPECT_EQ(positions, expected);
      ASSERT_EQ(rows.size(), 30U * 64U);
      if (whole.empty()) whole = rows;
      EXPECT_EQ(rows, whole);
    }
  }
}

// The last row is computed although the cache holds the prompt; the others come from it.
TEST_F(EngineTest, ShowsTheLastHiddenState) {
  Engine engine(model_.options());
  std::vector<std::vector<float>> rows;
  for (int round = 0; round < 2; ++round) {
    Request request = make_request("a", prompt_of(30, 2), {.temperature = 0.0, .max_tokens = 0});
    request.row_scope = Request::RowScope::kLast;
    request.on_hidden = [&](int64_t position, std::span<const float> hidden) {
      EXPECT_EQ(position, 29);
      rows.emplace_back(hidden.begin(), hidden.end());
    };
    Client client;
    client.submit(engine, std::move(request));
    EXPECT_EQ(client.wait()["a"].num_cached_tokens, round == 0 ? 0 : 28);
  }
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0], rows[1]);
}

TEST_F(EngineTest, LastLogitsOnly) {
  Engine engine(model_.options());
  std::vector<int64_t> positions;
  std::vector<float> row;
  Request request = make_request("a", prompt_of(20, 0), {.temperature = 0.0, .max_tokens = 1});
  request.row_scope = Request::RowScope::kLast;
  request.on_logits = [&](int64_t position, std::span<const float> logits) {
    positions.push_back(position);
    row.assign(logits.begin(), logits.end());
  };
  Client client;
  client.submit(engine, std::move(request));
  const Answer answer = client.wait()["a"];
  EXPECT_EQ(positions, std::vector<int64_t>{19});
  EXPECT_EQ(answer.tokens.at(0).at(0), std::max_element(row.begin(), row.end()) - row.begin());
}

TEST_F(EngineTest, StopsWhereItIsTold) {
  Engine engine(model_.options());
  Client first;
  first.submit(engine, make_request("free", prompt_of(9, 4), {.temperature = 0.0, .max_tokens = 10}));
  const std::vector<int32_t> tokens = first.wait()["free"].tokens[0];
  const int32_t third = tokens[2];
  const auto expected = static_cast<size_t>(std::find(tokens.begin(), tokens.end(), third) - tokens.begin()) + 1;
  Client client;
  client.submit(
      engine, make_request("stop", prompt_of(9, 4), {.temperature = 0.0, .stop_token_ids = {third}, .max_tokens = 10}));
  Request eos = make_request("eos", prompt_of(9, 4), {.temperature = 0.0, .max_tokens = 10});
  eos.eos_token_ids = {third};
  client.submit(engine, eos);
  Request ignored = eos;
  ignored.id = "ignored";
  ignored.sampling.ignore_eos = true;
  client.submit(engine, ignored);
  auto& answers = client.wait();
  for (const char* id : {"stop", "eos"}) {
    EXPECT_EQ(answers[id].tokens[0].size(), expected);
    EXPECT_EQ(answers[id].reason, FinishReason::kStop);
    EXPECT_EQ(answers[id].stop_token_id, third);
  }
  EXPECT_EQ(answers["ignored"].tokens[0], tokens);
  EXPECT_GE(answers["stop"].times.first_token_us, answers["stop"].times.first_scheduled_us);
  EXPECT_GE(answers["stop"].times.first_scheduled_us, answers["stop"].times.arrival_us);
  EXPECT_GE(answers["stop"].times.last_token_us, answers["stop"].times.first_token_us);
}

TEST_F(EngineTest, RunsToTheEndOfTheContext) {
  EngineOptions options = model_.options();
  options.max_model_len = 30;
  Engine engine(options);
  Client client;
  Request request = make_request("a", prompt_of(10, 0), {.temperature = 0.0});
  request.sampling.max_tokens.reset();
  client.submit(engine, std::move(request));
  EXPECT_EQ(client.wait()["a"].tokens[0].size(), 20u);
}

TEST_F(EngineTest, RefusesInvalidRequests) {
  Engine engine(model_.options());
  auto error_of = [&](Request request) -> std::string {
    try {
      (void)engine.submit(std::move(request));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalid);
      return error.what();
    }
    return "";
  };
  EXPECT_NE(error_of(make_request("a", {}, {})).find("at least one token"), std::string::npos);
  EXPECT_NE(error_of(make_request("a", {1, 96}, {})).find("token id 96 at position 1"), std::string::npos);
  EXPECT_NE(error_of(make_request("a", {-1}, {})).find("token id -1"), std::string::npos);
  EXPECT_NE(error_of(make_request("a", prompt_of(300, 0), {})).find("300 tokens"), std::string::npos);
  EXPECT_NE(error_of(make_request("a", {1}, {.top_p = 2.0})).find("top_p"), std::string::npos);
}

TEST_F(EngineTest, AbortsAndShutsDownCleanly) {
  Client client;
  {
    Engine engine(model_.options());
    SamplingParams endless{.temperature = 0.0, .max_tokens = 240};
    client.submit(engine, make_request("a", prompt_of(4, 0), endless));
    client.submit(engine, make_request("b", prompt_of(4, 1), endless));
    client.wait_for_tokens("a", 2);
    engine.abort("a");
    engine.abort("nobody");
  }
  auto& answers = client.wait();
  for (const char* id : {"a", "b"}) {
    EXPECT_EQ(answers[id].num_finished_events, 1);
    EXPECT_TRUE(answers[id].reason == FinishReason::kAbort || answers[id].tokens[0].size() == 240);
  }
}

TEST_F(EngineTest, ReportsEveryByte) {
  EngineOptions options = model_.options();
  options.max_num_seqs = 2;
  const Engine engine(options);
  const EngineReport& report = engine.report();
  EXPECT_EQ(report.architecture, "LlamaForCausalLM");
  EXPECT_EQ(report.dtype, "f32");
  EXPECT_EQ(report.kv_cache_dtype, "f32");
  EXPECT_EQ(report.max_model_len, 256);
  EXPECT_EQ(report.kv_bytes_per_token, 2 * 2 * 2 * 16 * 4);  // k and v, layers, KV heads, head_dim, f32
  EXPECT_EQ(report.num_kv_blocks, 2 * 64);                   // what two sequences of 256 tokens can use
  EXPECT_EQ(report.kv_cache_tokens, 512);
  EXPECT_EQ(report.kv_cache_bytes, 512 * report.kv_bytes_per_token);
  // embeddings and lm_head; per layer q, k, v, o, gate, up, down and two norms; the last norm.
  const int64_t layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 96 * 64 + 2 * 64;
  EXPECT_EQ(report.weight_bytes, 4 * (2 * 96 * 64 + 2 * layer + 64));
  EXPECT_EQ(report.scale_bytes, 0);
  EXPECT_GT(report.activation_bytes, 0);
  EXPECT_GE(report.start_seconds, report.load_seconds);
}

TEST_F(EngineTest, SaysWhatWouldFit) {
  EngineOptions options = model_.options();
  options.kv_cache_memory_bytes = 100 * 512;  // 100 tokens
  try {
    const Engine engine(options);
    FAIL() << "must not start";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMemory);
    EXPECT_NE(std::string(error.what()).find("max_model_len that would fit is 100"), std::string::npos) << error.what();
  }
}

TEST_F(EngineTest, AFailingRankIsAnErrorNotAHang) {
  EngineOptions options = model_.options();
  options.tensor_parallel_size = 3;  // 4 heads cannot be split
  EXPECT_THROW(Engine{options}, Error);
}

// The same on a GPU, where the device draws tokens and decode steps are replayed graphs of padded batches.
class GpuEngineTest : public EngineTest {
 protected:
  void SetUp() override {
    if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
  }
  EngineOptions options() const {
    EngineOptions options = model_.options();
    options.device = "cuda";
    return options;
  }
};

TEST_F(GpuEngineTest, TokensDoNotDependOnHowStepsAreMade) { expect_tokens_however_steps_are_made(options()); }

// Steps launched kernel by kernel give the tokens of recorded ones.
TEST_F(GpuEngineTest, RecordedStepsGiveTheTokensOfOthers) {
  EngineOptions eager = options();
  eager.enforce_eager = true;
  EXPECT_EQ(Engine(eager).report().num_graphs, 0);
  EXPECT_EQ(run_together(eager), run_together(options()));
}

// The device draws all tokens, so that steps start behind others; some end at a stop token that nobody expects.
TEST_F(GpuEngineTest, StepsStartedBehindOthersChangeNoToken) {
  std::map<std::string, std::vector<int32_t>> tokens[2];
  for (const bool overlap : {false, true}) {
    EngineOptions overlapped = options();
    overlapped.async_scheduling = overlap;
    Engine engine(overlapped);
    Client client;
    for (int32_t i = 0; i < 24; ++i) {
      SamplingParams sampling{.temperature = i % 4 < 2 ? 0.0 : 0.9, .top_p = 0.95, .seed = i, .max_tokens = 30 + i};
      for (int32_t id = i % 3; id < TinyModel::kVocabSize && i % 2 == 0; id += 24)
        sampling.stop_token_ids.push_back(id);
      client.submit(engine, make_request(std::to_string(i), prompt_of(3 + 5 * (i % 7), i), sampling));
    }
    for (auto& [id, answer] : client.wait()) tokens[overlap][id] = answer.tokens[0];
  }
  EXPECT_EQ(tokens[0].size(), 24u);
  EXPECT_EQ(tokens[0], tokens[1]);
}

TEST_F(GpuEngineTest, PreemptionChangesNoToken) { expect_tokens_despite_preemption(options()); }

TEST_F(GpuEngineTest, ReportsWhatItUses) {
  const Engine engine(options());
  const EngineReport& report = engine.report();
  EXPECT_EQ(report.dtype, "bf16");
  EXPECT_EQ(report.kv_cache_dtype, "bf16");
  EXPECT_GT(report.workspace_bytes, 0);
  EXPECT_EQ(report.largest_graph, 16);
  EXPECT_EQ(report.num_graphs, 5);  // 1, 2, 4, 8, 16
}

// Asking for log-probabilities makes the host look at the logits: it draws the tokens that the device draws.
TEST_F(GpuEngineTest, TheDeviceChoosesAsTheHostDoes) {
  std::map<std::string, std::vector<int32_t>> tokens[2];
  for (const bool by_host : {false, true}) {
    Engine engine(options());
    Client client;
    for (int32_t i = 0; i < 8; ++i) {
      SamplingParams sampling{
          .temperature = i < 4 ? 0.0 : 1.0, .top_p = i < 6 ? 1.0 : 0.9, .seed = i, .max_tokens = 20};
      if (i > 4) sampling.top_k = 20;
      if (by_host) sampling.logprobs = 1;
      client.submit(engine, make_request(std::to_string(i), prompt_of(3 + 5 * i, i), sampling));
    }
    for (auto& [id, answer] : client.wait()) {
      EXPECT_EQ(answer.reason, FinishReason::kLength) << answer.error;
      tokens[by_host][id] = answer.tokens[0];
      ASSERT_EQ(answer.logprobs.size(), by_host ? 20u : 0u);
      for (const PositionLogprobs& position : answer.logprobs) EXPECT_TRUE(id >= "4" || position.front().rank == 1);
    }
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(tokens[0].size(), 8u);
}

TEST_F(GpuEngineTest, PromptsAreScoredInSlices) {
  Engine engine(options());
  Client client;
  SamplingParams sampling{.temperature = 0.0, .max_tokens = 1};
  sampling.prompt_logprobs = 0;
  client.submit(engine, make_request("a", prompt_of(150, 1), sampling));
  const Answer& answer = client.wait().at("a");
  ASSERT_EQ(answer.prompt_logprobs.size(), 150u);
  EXPECT_TRUE(answer.prompt_logprobs[0].empty());
  for (size_t i = 1; i < 150; ++i) {
    ASSERT_EQ(answer.prompt_logprobs[i].size(), 1u) << i;
    EXPECT_LT(answer.prompt_logprobs[i][0].logprob, 0.0f) << i;
    EXPECT_GT(answer.prompt_logprobs[i][0].logprob, -50.0f) << i;
  }
}

TEST_F(GpuEngineTest, MoreRanksThanGpusAreRefused) {
  EngineOptions many = options();
  many.tensor_parallel_size = 64;
  EXPECT_THROW(Engine{many}, Error);
}

}  // namespace
}  // namespace octet
