#include "octet/engine/engine_loop.h"

#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <future>
#include <unordered_map>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/engine/fake_runner_for_test.h"
#include "octet/engine/kv_sizing.h"

namespace octet {
namespace {

// Runs steps on the caller's thread, when their result is asked for; fails at a step of choice.
class FakeStepRunner final : public StepRunner {
 public:
  FakeStepRunner(int64_t num_blocks, int64_t block_size) : runner_({}, num_blocks, block_size) {}
  int fail_at_step = -1;
  int64_t break_logits_of_sequence = -1;

  void start(const StepPlan& plan) override { plan_ = &plan; }
  StepResult wait() override {
    if (num_steps_++ == fail_at_step) fail(ErrorCode::kInternal, "the rank caught fire");
    StepResult result = runner_.run(*plan_);
    for (size_t i = 0; i < plan_->chunks.size(); ++i) {
      if (static_cast<int64_t>(plan_->chunks[i].sequence) != break_logits_of_sequence) continue;
      result.chunks[i].sampled.outcome = SampleOutcome::kBrokenLogits;
    }
    return result;
  }

 private:
  FakeRunner runner_;
  const StepPlan* plan_ = nullptr;
  int num_steps_ = 0;
};

// Takes a step while another is under way, as a GPU does: pending tokens are known only when that one has run.
class QueueingStepRunner final : public StepRunner {
 public:
  QueueingStepRunner(int64_t num_blocks, int64_t block_size) : runner_({}, num_blocks, block_size) {}
  int num_behind() const { return num_behind_; }

  void start(const StepPlan& plan) override {
    EXPECT_TRUE(queued_.empty());
    queued_.push_back(plan);
  }
  bool start_behind(const StepPlan& plan) override {
    EXPECT_EQ(queued_.size(), 1u);
    for (const StepChunk& chunk : plan.chunks) {
      if (chunk.num_tokens != 1 || chunk.sample == StepChunk::Sample::kNo) return false;
    }
    if (!plan.starts.empty()) return false;
    queued_.push_back(plan);
    ++num_behind_;
    return true;
  }
  StepResult wait() override {
    StepPlan plan = std::move(queued_.front());
    queued_.pop_front();
    for (const StepChunk& chunk : plan.chunks) {
      int32_t& last = plan.token_ids[static_cast<size_t>(chunk.first_token + chunk.num_tokens - 1)];
      if (last == kPendingToken) last = tokens_.at(chunk.sequence);
    }
    StepResult result = runner_.run(plan);
    for (size_t i = 0; i < plan.chunks.size(); ++i)
      tokens_[plan.chunks[i].sequence] = result.chunks[i].sampled.token_id;
    return result;
  }

 private:
  FakeRunner runner_;
  std::deque<StepPlan> queued_;
  std::unordered_map<SequenceId, int32_t> tokens_;  // the last one sampled
  int num_behind_ = 0;
};

SchedulerOptions options() {
  return {.blocks = {.num_blocks = 64, .block_size = 4},
          .max_model_len = 200,
          .max_num_batched_tokens = 32,
          .max_num_seqs = 8};
}

struct Outcome {
  std::promise<void> done;
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kNone;
  std::string error;
};

Request make_request(std::string id, int32_t max_tokens, Outcome& outcome) {
  Request request;
  request.id = std::move(id);
  request.prompt_token_ids = {1, 2, 3, 4, 5};
  request.sampling.max_tokens = max_tokens;
  request.sampling.seed = 3;
  request.on_event = [&outcome](RequestEvent event) {
    for (const SequenceDelta& delta : event.deltas) {
      outcome.tokens.insert(outcome.tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
      outcome.reason = delta.finish_reason;
      outcome.error = delta.error;
    }
    if (event.finished) outcome.done.set_value();
  };
  return request;
}

TEST(EngineLoop, AFaultyStepEndsEveryRequestAndStopsTheEngine) {
  set_log_level(LogLevel::kError);
  for (auto overlap : {EngineLoop::Overlap::kNo, EngineLoop::Overlap::kYes}) {
    FakeStepRunner runner(64, 4);
    runner.fail_at_step = 5;
    EngineLoop loop(options(), runner, overlap);
    Outcome a, b;
    ASSERT_EQ(loop.submit(make_request("a", 100, a)), SubmitResult::kAccepted);
    (void)loop.submit(make_request("b", 100, b));
    a.done.get_future().wait();
    EXPECT_EQ(a.reason, FinishReason::kError);
    EXPECT_EQ(a.error, "the rank caught fire");
    EXPECT_EQ(loop.fault(), "the rank caught fire");
    Outcome late;
    EXPECT_EQ(loop.submit(make_request("late", 1, late)), SubmitResult::kStopped);
  }
}

// Requests that end when nobody expects it, in a cache that is too small for them: the tokens of each alone.
TEST(EngineLoop, StepsStartedBehindOthersChangeNoToken) {
  constexpr int kRequests = 60;
  SchedulerOptions small = options();
  small.blocks.num_blocks = 70;
  small.max_queued_requests = kRequests;
  QueueingStepRunner runner(small.blocks.num_blocks, small.blocks.block_size);
  std::vector<Outcome> outcomes(kRequests);
  std::vector<std::vector<int32_t>> expected;
  {
    EngineLoop loop(small, runner, EngineLoop::Overlap::kYes);
    for (int i = 0; i < kRequests; ++i) {
      Request request = make_request(std::to_string(i), 10 + 7 * (i % 11), outcomes[static_cast<size_t>(i)]);
      for (int k = 0; k < 3 + i % 40; ++k) request.prompt_token_ids.push_back((i * k) % 50);
      request.sampling.seed = i;
      if (i % 3 != 0) request.eos_token_ids = {1, 17};
      expected.push_back(FakeModel().generate(request, static_cast<uint64_t>(i), 0, small.max_model_len));
      ASSERT_EQ(loop.submit(std::move(request)), SubmitResult::kAccepted);
    }
    for (Outcome& outcome : outcomes) outcome.done.get_future().wait();
  }
  for (size_t i = 0; i < kRequests; ++i) {
    EXPECT_EQ(outcomes[i].error, "");
    EXPECT_EQ(outcomes[i].tokens, expected[i]) << i;
  }
  EXPECT_GT(runner.num_behind(), 20);
}

TEST(EngineLoop, BrokenLogitsEndOneRequest) {
  FakeStepRunner runner(64, 4);
  runner.break_logits_of_sequence = 0;
  EngineLoop loop(options(), runner, EngineLoop::Overlap::kYes);
  Outcome bad, good;
  (void)loop.submit(make_request("bad", 10, bad));
  (void)loop.submit(make_request("good", 10, good));
  bad.done.get_future().wait();
  good.done.get_future().wait();
  EXPECT_EQ(bad.reason, FinishReason::kError);
  EXPECT_EQ(bad.error, "NaN logits");
  EXPECT_EQ(good.reason, FinishReason::kLength);
  EXPECT_EQ(good.tokens.size(), 10u);
  EXPECT_FALSE(loop.fault());
}

TEST(EngineLoop, CallbacksMaySubmitAndAbort) {
  FakeStepRunner runner(64, 4);
  EngineLoop loop(options(), runner, EngineLoop::Overlap::kYes);
  Outcome first, second;
  Request request = make_request("first", 100, first);
  request.on_event = [&, on_event = request.on_event, count = 0](RequestEvent event) mutable {
    if (++count == 3) {
      (void)loop.submit(make_request("second", 4, second));
      loop.abort("first");
    }
    on_event(std::move(event));
  };
  ASSERT_EQ(loop.submit(std::move(request)), SubmitResult::kAccepted);
  first.done.get_future().wait();
  second.done.get_future().wait();
  EXPECT_EQ(first.reason, FinishReason::kAbort);
  EXPECT_EQ(second.tokens.size(), 4u);
}

TEST(EngineLoop, WorkForIdleTimesWaitsForRequests) {
  FakeStepRunner runner(64, 4);
  EngineLoop loop(options(), runner, EngineLoop::Overlap::kYes);
  Outcome first, second;
  ASSERT_EQ(loop.submit(make_request("first", 12, first)), SubmitResult::kAccepted);
  size_t num_tokens = 0;
  loop.when_idle([&] { num_tokens = first.tokens.size(); });
  EXPECT_EQ(num_tokens, 12u);
  EXPECT_THROW(loop.when_idle([] { fail(ErrorCode::kUsage, "no"); }), Error);
  ASSERT_EQ(loop.submit(make_request("second", 4, second)), SubmitResult::kAccepted);
  second.done.get_future().wait();
}

TEST(EngineLoop, RefusesAnIdInUseAndAFullQueue) {
  SchedulerOptions small = options();
  small.max_queued_requests = 1;
  small.max_num_seqs = 1;
  FakeStepRunner runner(64, 4);
  std::vector<Outcome> outcomes(50);  // before the loop: its end still calls them
  EngineLoop loop(small, runner, EngineLoop::Overlap::kYes);
  bool full = false;
  for (size_t i = 0; i < outcomes.size() && !full; ++i) {
    full = loop.submit(make_request(std::to_string(i), 190, outcomes[i])) == SubmitResult::kQueueFull;
  }
  EXPECT_TRUE(full);
}

TEST(EngineLoop, ManyThreadsSubmitAndAbort) {
  FakeStepRunner runner(64, 4);
  EngineLoop loop(options(), runner, EngineLoop::Overlap::kYes);
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        Outcome outcome;
        const std::string id = fmt::format("{}-{}", t, i);
        if (loop.submit(make_request(id, 12, outcome)) != SubmitResult::kAccepted) continue;
        if (i % 3 == 0) loop.abort(id);
        outcome.done.get_future().wait();
        if (outcome.reason != FinishReason::kAbort && outcome.tokens.size() != 12) ++num_wrong;
        (void)loop.metrics();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
  EXPECT_EQ(loop.metrics().num_running, 0);
  EXPECT_EQ(loop.metrics().kv_usage, 0.0);
}

// A runner that costs nothing: prints what the engine itself costs per step; asserts nothing about it.
class FreeStepRunner final : public StepRunner {
 public:
  void start(const StepPlan& plan) override { plan_ = &plan; }
  StepResult wait() override {
    StepResult result;
    result.chunks.resize(plan_->chunks.size());
    for (ChunkResult& chunk : result.chunks) chunk.sampled.token_id = 7;
    return result;
  }

 private:
  const StepPlan* plan_ = nullptr;
};

TEST(EngineLoop, CostOfAStep) {
  SchedulerOptions large{.blocks = {.num_blocks = 256 * 80, .block_size = 16},
                         .max_model_len = 1280,
                         .max_num_batched_tokens = 2048,
                         .max_num_seqs = 256};
  FreeStepRunner runner;
  EngineLoop loop(large, runner, EngineLoop::Overlap::kYes);
  std::vector<Outcome> outcomes(256);
  constexpr int32_t kTokens = 400;
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    ASSERT_EQ(loop.submit(make_request(std::to_string(i), kTokens, outcomes[i])), SubmitResult::kAccepted);
  }
  for (Outcome& outcome : outcomes) outcome.done.get_future().wait();
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  fmt::print("engine without a model, 256 sequences: {:.1f} us per step\n",
             took.count() / static_cast<double>(loop.metrics().num_steps));
}

TEST(KvSizing, GrantsWhatIsUsefulAndFits) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  const KvBudget budget{.bytes_per_block = 1 << 20,
                        .block_size = 16,
                        .max_model_len = 1600,
                        .max_num_seqs = 256,
                        .available_bytes = 100 * kGiB,
                        .requested_bytes = {}};
  EXPECT_EQ(num_kv_blocks(budget), 4096);  // 4 GiB
  KvBudget small = budget;
  small.available_bytes = 2 * kGiB;
  EXPECT_EQ(num_kv_blocks(small), 512);  // a quarter
  small.available_bytes = kGiB / 8;
  EXPECT_EQ(num_kv_blocks(small), 100);  // one sequence
  KvBudget few = budget;
  few.max_num_seqs = 2;
  EXPECT_EQ(num_kv_blocks(few), 200);  // more could never be used
  KvBudget asked = budget;
  asked.requested_bytes = 6 * kGiB;
  EXPECT_EQ(num_kv_blocks(asked), 6144);
  KvBudget all = budget;
  all.unasked = KvBudget::Unasked::kAll;
  EXPECT_EQ(num_kv_blocks(all),
            std::min(all.available_bytes / all.bytes_per_block, all.max_num_seqs * all.max_model_len / all.block_size));
  KvBudget none = budget;
  none.available_bytes = 99 << 20;
  try {
    num_kv_blocks(none);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMemory);
    EXPECT_NE(std::string(error.what()).find("would fit is 1584"), std::string::npos);
  }
}

}  // namespace
}  // namespace octet
