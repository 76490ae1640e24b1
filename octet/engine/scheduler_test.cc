#include "octet/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "octet/base/error.h"
#include "octet/engine/fake_runner_for_test.h"
#include "octet/sampling/philox.h"

namespace octet {
namespace {

std::shared_ptr<Request> make_request(std::string id, std::vector<int32_t> prompt, int32_t max_tokens, int32_t n = 1) {
  auto request = std::make_shared<Request>();
  request->id = std::move(id);
  request->prompt_token_ids = std::move(prompt);
  request->sampling.n = n;
  request->sampling.max_tokens = max_tokens;
  request->sampling.seed = 11;
  return request;
}

std::vector<int32_t> tokens(int32_t count, int32_t first = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = (first + i) % 50;
  return ids;
}

// What a client saw of one request.
struct Received {
  std::map<int32_t, std::vector<int32_t>> output;  // by index
  std::map<int32_t, FinishReason> reasons;
  std::vector<PositionLogprobs> prompt_logprobs;
  bool finished = false;
  int64_t num_cached = 0;
};

// Drives a scheduler with a fake runner, with or without overlap, and checks every invariant of a plan.
class Simulation {
 public:
  enum class Overlap { kNo, kYes };
  Simulation(const SchedulerOptions& options, Overlap overlap)
      : options_(options),
        overlap_(overlap),
        scheduler_(options),
        runner_({}, options.blocks.num_blocks, options.blocks.block_size) {}

  Scheduler& scheduler() { return scheduler_; }
  FakeRunner& runner() { return runner_; }
  Received& received(const std::string& id) { return received_[id]; }
  bool add(std::shared_ptr<const Request> request) {
    scheduler_.check(*request);
    return scheduler_.add(std::move(request));
  }
  void abort(const std::string& id) { take(scheduler_.abort(id)); }
  void abort_sequence(const std::string& id, int32_t index) { take(scheduler_.abort_sequence(id, index)); }

  // One step; false when there was nothing to run. `meanwhile` happens while the step runs.
  template <class Fn>
  bool step(Fn&& meanwhile) {
    if (next_.empty()) next_ = scheduler_.plan();
    if (next_.empty()) {
      meanwhile();
      return false;
    }
    StepPlan plan = std::exchange(next_, {});
    check(plan);
    StepResult result = runner_.run(plan);
    meanwhile();
    if (overlap_ == Overlap::kYes) next_ = scheduler_.plan();
    take(scheduler_.commit(plan, std::move(result)));
    scheduler_.reconcile(next_);
    scheduler_.check_integrity();
    return true;
  }
  void finish() {
    for (int i = 0; !scheduler_.idle(); ++i) {
      ASSERT_LT(i, 100000) << "no progress";
      step([] {});
    }
  }

 private:
  void check(const StepPlan& plan) {
    const bool chunks = options_.chunked_prefill == SchedulerOptions::ChunkedPrefill::kYes;
    EXPECT_LE(plan.num_tokens, chunks ? options_.max_num_batched_tokens
                                      : std::max(options_.max_num_batched_tokens, options_.max_model_len));
    EXPECT_LE(static_cast<int64_t>(plan.chunks.size()), options_.max_num_seqs);
    std::map<SequenceId, int> seen;
    for (const StepChunk& chunk : plan.chunks) {
      EXPECT_EQ(++seen[chunk.sequence], 1);
      EXPECT_GT(chunk.num_tokens, 0);
    }
  }
  void take(std::vector<SequenceUpdate> updates) {
    for (SequenceUpdate& update : updates) {
      Received& r = received_[update.request->id];
      EXPECT_FALSE(r.finished);
      EXPECT_FALSE(r.reasons.contains(update.index));
      if (update.token_id) r.output[update.index].push_back(*update.token_id);
      for (auto& position : update.prompt_logprobs) r.prompt_logprobs.push_back(std::move(position));
      if (update.finish_reason != FinishReason::kNone) r.reasons[update.index] = update.finish_reason;
      r.finished = update.request_finished;
      r.num_cached = std::max(r.num_cached, update.num_cached_tokens);
    }
  }

  SchedulerOptions options_;
  Overlap overlap_;
  Scheduler scheduler_;
  FakeRunner runner_;
  StepPlan next_;
  std::map<std::string, Received> received_;
};

SchedulerOptions small_options() {
  return {.blocks = {.num_blocks = 32, .block_size = 4},
          .max_model_len = 64,
          .max_num_batched_tokens = 16,
          .max_num_seqs = 4};
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  SchedulerOptions options = small_options();
  options.blocks.num_blocks = 8;  // 32 tokens, fewer than max_model_len
  const Scheduler scheduler(options);
  auto error_of = [&](const Request& request) -> std::string {
    try {
      scheduler.check(request);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalid);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_of(*make_request("a", tokens(31), 1)), "");
  EXPECT_EQ(error_of(*make_request("a", tokens(32), 0)), "");
  EXPECT_NE(error_of(*make_request("a", tokens(32), 1)).find("no room"), std::string::npos);
  EXPECT_NE(error_of(*make_request("a", tokens(33), 1)).find("33 tokens, the whole KV cache holds 32 (8 blocks of 4)"),
            std::string::npos);
  EXPECT_NE(error_of(*make_request("a", tokens(65), 1)).find("65 tokens, the model's context (max_model_len) is 64"),
            std::string::npos);
  EXPECT_NE(error_of(*make_request("a", {}, 1)).find("at least one token"), std::string::npos);
}

TEST(Scheduler, CutsPromptsByTheBudgetAndSamplesOnlyAtTheEnd) {
  Scheduler scheduler(small_options());
  FakeRunner runner({}, 32, 4);
  ASSERT_TRUE(scheduler.add(make_request("a", tokens(40), 2)));
  for (int64_t expected : {16, 16, 8, 1}) {
    StepPlan plan = scheduler.plan();
    ASSERT_EQ(plan.chunks.size(), 1u);
    EXPECT_EQ(plan.num_tokens, expected);
    EXPECT_EQ(plan.chunks[0].sample == StepChunk::Sample::kYes, expected != 16);
    scheduler.commit(plan, runner.run(plan));
  }
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, WithoutChunksAPromptRunsWhole) {
  SchedulerOptions options = small_options();
  options.chunked_prefill = SchedulerOptions::ChunkedPrefill::kNo;
  Scheduler scheduler(options);  // its budget becomes max_model_len = 64
  ASSERT_TRUE(scheduler.add(make_request("a", tokens(40), 2)));
  ASSERT_TRUE(scheduler.add(make_request("b", tokens(40, 7), 2)));
  const StepPlan plan = scheduler.plan();
  ASSERT_EQ(plan.chunks.size(), 1u);
  EXPECT_EQ(plan.num_tokens, 40);
  scheduler.check_integrity();
}

TEST(Scheduler, FindsCachedPrefixesButComputesTheLastToken) {
  Simulation simulation(small_options(), Simulation::Overlap::kNo);
  ASSERT_TRUE(simulation.add(make_request("a", tokens(16), 1)));
  simulation.finish();
  EXPECT_EQ(simulation.runner().num_computed(), 16);
  ASSERT_TRUE(simulation.add(make_request("b", tokens(16), 1)));
  simulation.finish();
  EXPECT_EQ(simulation.received("b").num_cached, 12);
  EXPECT_EQ(simulation.runner().num_computed(), 16 + 4);
  auto salted = make_request("c", tokens(16), 1);
  salted->cache_salt = "other tenant";
  ASSERT_TRUE(simulation.add(salted));
  simulation.finish();
  EXPECT_EQ(simulation.received("c").num_cached, 0);
  simulation.scheduler().reset_prefix_cache();
  ASSERT_TRUE(simulation.add(make_request("d", tokens(16), 1)));
  simulation.finish();
  EXPECT_EQ(simulation.received("d").num_cached, 0);
}

TEST(Scheduler, SequencesOfOneRequestComputeThePromptOnce) {
  for (bool caching : {false, true}) {
    SchedulerOptions options = small_options();
    options.blocks.enable_prefix_caching = caching;
    Simulation simulation(options, Simulation::Overlap::kNo);
    ASSERT_TRUE(simulation.add(make_request("a", tokens(14), 3, 3)));
    simulation.finish();
    // 14 for the first; 2 of the last block for each other one; 2 output tokens each (the third is only sampled).
    EXPECT_EQ(simulation.runner().num_computed(), 14 + 2 * 2 + 3 * 2);
    EXPECT_EQ(simulation.received("a").output.size(), 3u);
    EXPECT_NE(simulation.received("a").output[0], simulation.received("a").output[1]);
  }
}

TEST(Scheduler, EndsOneSequenceOfARequest) {
  for (const auto overlap : {Simulation::Overlap::kNo, Simulation::Overlap::kYes}) {
    Simulation simulation(small_options(), overlap);
    ASSERT_TRUE(simulation.add(make_request("a", tokens(9), 20, 3)));
    for (int i = 0; i < 6; ++i) simulation.step([] {});
    const int64_t used = simulation.scheduler().blocks().num_used();
    simulation.step([&] { simulation.abort_sequence("a", 1); });
    EXPECT_LT(simulation.scheduler().blocks().num_used(), used);  // its own blocks are free, the shared ones are not
    EXPECT_EQ(simulation.scheduler().num_running(), 2);
    simulation.abort_sequence("a", 1);
    simulation.abort_sequence("a", 3);
    simulation.abort_sequence("b", 0);
    const Received& received = simulation.received("a");
    EXPECT_EQ(received.reasons.size(), 1u);
    simulation.finish();
    EXPECT_EQ(received.reasons.at(1), FinishReason::kAbort);
    EXPECT_LT(received.output.at(1).size(), 20u);
    EXPECT_EQ(received.output.at(0).size(), 20u);
    EXPECT_EQ(received.output.at(2).size(), 20u);
    EXPECT_EQ(simulation.scheduler().blocks().num_used(), 0);
  }
}

// The first sequence computes the prompt for the others: without it they do it themselves.
TEST(Scheduler, EndsTheSequenceThatOthersWaitFor) {
  for (const int when : {0, 1}) {
    Simulation simulation(small_options(), Simulation::Overlap::kYes);
    ASSERT_TRUE(simulation.add(make_request("a", tokens(40), 5, 3)));
    if (when == 1) simulation.step([&] { simulation.abort_sequence("a", 0); });
    if (when == 0) simulation.abort_sequence("a", 0);
    simulation.finish();
    const Received& received = simulation.received("a");
    EXPECT_EQ(received.reasons.at(0), FinishReason::kAbort);
    EXPECT_EQ(received.output.at(1).size(), 5u);
    EXPECT_EQ(received.output.at(2).size(), 5u);
  }
}

TEST(Scheduler, ServesByPriorityOnlyUnderThatPolicy) {
  for (auto policy : {SchedulerOptions::Policy::kFcfs, SchedulerOptions::Policy::kPriority}) {
    SchedulerOptions options = small_options();
    options.max_num_seqs = 1;
    options.policy = policy;
    Scheduler scheduler(options);
    auto late = make_request("late", tokens(4), 1), urgent = make_request("urgent", tokens(4), 1);
    late->priority = 5;
    urgent->priority = -5;
    ASSERT_TRUE(scheduler.add(late));
    ASSERT_TRUE(scheduler.add(urgent));
    const StepPlan plan = scheduler.plan();
    ASSERT_EQ(plan.starts.size(), 1u);
    EXPECT_EQ(plan.starts[0].request->id, policy == SchedulerOptions::Policy::kFcfs ? "late" : "urgent");
  }
}

TEST(Scheduler, BoundsItsQueue) {
  SchedulerOptions options = small_options();
  options.max_queued_requests = 2;
  options.max_num_seqs = 1;
  Simulation simulation(options, Simulation::Overlap::kNo);
  EXPECT_TRUE(simulation.add(make_request("a", tokens(4), 8)));
  EXPECT_TRUE(simulation.add(make_request("b", tokens(4), 8)));
  EXPECT_FALSE(simulation.add(make_request("c", tokens(4), 8)));
  simulation.step([] {});  // a runs now
  EXPECT_TRUE(simulation.add(make_request("c", tokens(4), 8)));
  simulation.abort("b");
  EXPECT_TRUE(simulation.add(make_request("d", tokens(4), 8)));
  simulation.finish();
}

TEST(Scheduler, EndsOnlyWhatStillWaits) {
  SchedulerOptions options = small_options();
  options.max_num_seqs = 1;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.add(make_request("runs", tokens(4), 8)));
  ASSERT_TRUE(scheduler.add(make_request("waits", tokens(4), 8, 2)));
  ASSERT_EQ(scheduler.plan().starts.size(), 1u);
  EXPECT_TRUE(scheduler.abort_waiting("runs").empty());
  EXPECT_TRUE(scheduler.abort_waiting("nobody").empty());
  const auto updates = scheduler.abort_waiting("waits");
  ASSERT_EQ(updates.size(), 2u);
  EXPECT_EQ(updates[0].finish_reason, FinishReason::kAbort);
  EXPECT_TRUE(updates[1].request_finished);
  EXPECT_EQ(scheduler.num_waiting(), 0);
  EXPECT_EQ(scheduler.num_running(), 1);
}

TEST(Scheduler, AFaultEndsOnlyItsRequest) {
  Scheduler scheduler(small_options());
  FakeRunner runner({}, 32, 4);
  ASSERT_TRUE(scheduler.add(make_request("bad", tokens(4), 5)));
  ASSERT_TRUE(scheduler.add(make_request("good", tokens(4), 5)));
  StepPlan plan = scheduler.plan();
  StepResult result = runner.run(plan);
  result.chunks[0].sampled.outcome = SampleOutcome::kBrokenLogits;
  const auto updates = scheduler.commit(plan, std::move(result));
  ASSERT_EQ(updates.size(), 2u);
  EXPECT_EQ(updates[0].finish_reason, FinishReason::kError);
  EXPECT_EQ(updates[0].error, "NaN logits");
  EXPECT_TRUE(updates[0].request_finished);
  EXPECT_EQ(updates[1].finish_reason, FinishReason::kNone);
  scheduler.check_integrity();
}

struct Trial {
  SchedulerOptions options;
  std::vector<std::shared_ptr<Request>> requests;
  std::vector<int> arrival_steps;
  struct Abort {
    std::string id;
    std::optional<int32_t> index;  // of one sequence; nothing: the whole request
  };
  std::map<int, Abort> aborts;  // by step
};

Trial random_trial(std::mt19937& random) {
  auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  Trial trial;
  const int block_size = pick(1, 5);
  const int num_blocks = pick(4, 40);
  trial.options = {
      .blocks = {.num_blocks = num_blocks, .block_size = block_size, .enable_prefix_caching = pick(0, 1) == 1},
      .max_model_len = pick(2, block_size * num_blocks),
      .max_num_batched_tokens = pick(1, 40),
      .max_num_seqs = pick(1, 8),
      .max_queued_requests = 1000,
      .chunked_prefill = pick(0, 3) ? SchedulerOptions::ChunkedPrefill::kYes : SchedulerOptions::ChunkedPrefill::kNo,
      .policy = pick(0, 1) ? SchedulerOptions::Policy::kPriority : SchedulerOptions::Policy::kFcfs,
      .seed = static_cast<uint64_t>(pick(0, 1000))};
  const auto longest = static_cast<int>(trial.options.max_model_len);
  const int num_requests = pick(1, 14);
  for (int i = 0; i < num_requests; ++i) {
    // Few distinct prompts' beginnings, so that prefixes are often shared.
    auto request = make_request(std::to_string(i), tokens(pick(1, longest - 1), pick(0, 1)), pick(0, 12),
                                pick(0, 3) ? 1 : pick(2, 4));
    if (pick(0, 1)) request->sampling.max_tokens.reset();
    if (pick(0, 3)) request->eos_token_ids = {3, 4, 5};
    if (pick(0, 1)) request->sampling.seed = pick(0, 5);
    request->priority = pick(-2, 2);
    if (pick(0, 3) == 0) request->cache_salt = "salt";
    if (pick(0, 3) == 0) request->sampling.prompt_logprobs = 0;
    trial.requests.push_back(request);
    trial.arrival_steps.push_back(pick(0, 20));
    if (pick(0, 4) == 0) trial.aborts[pick(0, 40)] = {.id = request->id, .index = {}};
    for (int index = 0; request->sampling.n > 1 && index < 4; ++index) {  // also indices that do not exist
      if (pick(0, 2) == 0) trial.aborts[pick(0, 40)] = {.id = request->id, .index = index};
    }
  }
  std::sort(trial.arrival_steps.begin(), trial.arrival_steps.end());
  return trial;
}

// `aborted`: the indices of sequences that were still running when they were aborted.
void check_request(const Request& request, const Received& received, const std::set<int32_t>& aborted, uint64_t seed,
                   const Trial& trial) {
  const int64_t limit = trial.options.max_model_len;
  EXPECT_TRUE(received.finished);
  EXPECT_EQ(static_cast<int32_t>(received.reasons.size()), request.sampling.n);
  for (const auto& [index, reason] : received.reasons) {
    std::vector<int32_t> expected = FakeModel{}.generate(request, seed, index, limit);
    auto found = received.output.find(index);
    const std::vector<int32_t> output = found == received.output.end() ? std::vector<int32_t>{} : found->second;
    if (reason == FinishReason::kAbort) {
      EXPECT_TRUE(aborted.contains(index));
      ASSERT_LE(output.size(), expected.size());
      expected.resize(output.size());
    } else {
      EXPECT_FALSE(aborted.contains(index));
      const bool by_eos = !expected.empty() && std::ranges::count(request.eos_token_ids, expected.back()) > 0;
      EXPECT_EQ(reason, by_eos ? FinishReason::kStop : FinishReason::kLength);
    }
    EXPECT_EQ(output, expected);
  }
  if (!request.sampling.prompt_logprobs || aborted.contains(0)) return;
  ASSERT_EQ(received.prompt_logprobs.size() + 1, request.prompt_token_ids.size());
  for (size_t i = 0; i < received.prompt_logprobs.size(); ++i) {
    EXPECT_EQ(received.prompt_logprobs[i][0].token_id, request.prompt_token_ids[i + 1]);
    EXPECT_EQ(received.prompt_logprobs[i][0].logprob, -static_cast<float>(i));
  }
}

void run_trial(const Trial& trial, Simulation::Overlap overlap, int64_t& num_preemptions,
               int64_t& num_sequence_aborts) {
  Simulation simulation(trial.options, overlap);
  std::map<std::string, std::set<int32_t>> aborted;
  size_t next = 0;
  for (int step = 0; step <= 41; ++step) {
    simulation.step([&] {
      for (; next < trial.requests.size() && trial.arrival_steps[next] <= step; ++next) {
        ASSERT_TRUE(simulation.add(trial.requests[next]));
      }
      auto found = trial.aborts.find(step);
      if (found == trial.aborts.end()) return;
      const auto& [id, index] = found->second;
      if (next <= static_cast<size_t>(std::stoi(id))) return;  // has not arrived
      const int32_t n = trial.requests[static_cast<size_t>(std::stoi(id))]->sampling.n;
      for (int32_t i = index.value_or(0); i < (index ? std::min(n, *index + 1) : n); ++i) {
        if (!simulation.received(id).reasons.contains(i)) aborted[id].insert(i);
      }
      if (index) {
        num_sequence_aborts += aborted[id].contains(*index);
        simulation.abort_sequence(id, *index);
      } else {
        simulation.abort(id);
      }
    });
  }
  simulation.finish();
  EXPECT_EQ(simulation.scheduler().blocks().num_used(), 0);
  simulation.scheduler().check_integrity();
  for (size_t i = 0; i < trial.requests.size(); ++i) {
    const Request& request = *trial.requests[i];
    const uint64_t seed =
        request.sampling.seed ? static_cast<uint64_t>(*request.sampling.seed) : derived_seed(trial.options.seed, i);
    check_request(request, simulation.received(request.id), aborted[request.id], seed, trial);
  }
  num_preemptions += simulation.scheduler().num_preemptions();
}

TEST(Scheduler, ThousandsOfRandomSchedulesGiveTheUnbatchedTokens) {
  std::mt19937 random(2024);
  int64_t num_preemptions = 0, num_sequence_aborts = 0;
  for (int i = 0; i < 1500 && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(i);
    const Trial trial = random_trial(random);
    run_trial(trial, Simulation::Overlap::kNo, num_preemptions, num_sequence_aborts);
    run_trial(trial, Simulation::Overlap::kYes, num_preemptions, num_sequence_aborts);
  }
  EXPECT_GT(num_preemptions, 1000);  // the trials do exercise it
  EXPECT_GT(num_sequence_aborts, 300);
}

TEST(Scheduler, TellsRunnersAboutEveryEnd) {
  Simulation simulation(small_options(), Simulation::Overlap::kYes);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(simulation.add(make_request(std::to_string(i), tokens(8, i), 5)));
  simulation.finish();
  ASSERT_TRUE(simulation.add(make_request("last", tokens(2), 2)));
  simulation.step([] {});
  EXPECT_EQ(simulation.runner().num_known(), 1u);
}

// Prints the cost; asserts nothing about it.
TEST(Scheduler, TimeOfAStep) {
  SchedulerOptions options{.blocks = {.num_blocks = 256 * 80, .block_size = 16},
                           .max_model_len = 1280,
                           .max_num_batched_tokens = 256 * 512,
                           .max_num_seqs = 256};
  Scheduler scheduler(options);
  for (int i = 0; i < 256; ++i) ASSERT_TRUE(scheduler.add(make_request(std::to_string(i), tokens(512, i), 700)));
  auto fake = [](const StepPlan& plan) {
    StepResult result;
    result.chunks.resize(plan.chunks.size());
    for (ChunkResult& chunk : result.chunks) chunk.sampled.token_id = 7;
    return result;
  };
  StepPlan plan = scheduler.plan();
  scheduler.commit(plan, fake(plan));
  constexpr int kSteps = 500;
  std::chrono::duration<double, std::micro> total{};
  for (int i = 0; i < kSteps; ++i) {
    StepResult result = fake(plan);
    const auto start = std::chrono::steady_clock::now();
    plan = scheduler.plan();
    result.chunks.resize(plan.chunks.size());
    scheduler.commit(plan, std::move(result));
    total += std::chrono::steady_clock::now() - start;
    ASSERT_EQ(plan.chunks.size(), 256u);
  }
  fmt::print("plan + commit of 256 decoding sequences: {:.1f} us per step\n", total.count() / kSteps);
}

}  // namespace
}  // namespace octet
