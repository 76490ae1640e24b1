// What the engine costs per step without a model: scheduling, prefix hashes, commits and events, for decoding sequences
// whose events another thread takes from a queue, as Llm does. A step is 1 ms of sleep. Medians over steps of the
// engine thread's processor time.
// Usage: engine_bench [NUM_SEQUENCES] [PROMPT_TOKENS] [NUM_STEPS]. Prints one JSON object per line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/queue.h"
#include "octet/engine/engine_loop.h"

namespace octet {
namespace {

// The engine thread's processor time, so that other load on the machine does not count.
double thread_microseconds() {
  timespec time{};
  OCTET_CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}

// Answers every step after a while with a token per sampling chunk, and notes the time between its calls.
class IdleRunner final : public StepRunner {
 public:
  explicit IdleRunner(size_t num_sequences) : num_sequences_(num_sequences) {}

  void start(const StepPlan& plan) override {
    const double now = thread_microseconds();
    // Steps of decodes alone, after another such: what happened since then was for this step.
    const bool decodes =
        plan.chunks.size() == num_sequences_ && plan.num_tokens == static_cast<int64_t>(num_sequences_);
    if (decodes && counts_) between_.push_back(now - waited_);
    counts_ = decodes;
    plan_ = &plan;
    started_ = thread_microseconds();
  }

  StepResult wait() override {
    if (counts_) during_.push_back(thread_microseconds() - started_);
    std::this_thread::sleep_for(kStep);
    StepResult result;
    result.chunks.resize(plan_->chunks.size());
    for (ChunkResult& chunk : result.chunks) chunk.sampled.token_id = next_token_++ % kVocabSize;
    waited_ = thread_microseconds();
    return result;
  }

  // Microseconds per step: while the ranks wait for the engine, and while they would compute.
  const std::vector<double>& between() const { return between_; }
  const std::vector<double>& during() const { return during_; }

 private:
  static constexpr std::chrono::milliseconds kStep{1};
  static constexpr int32_t kVocabSize = 32000;
  size_t num_sequences_;
  const StepPlan* plan_ = nullptr;
  double started_ = 0, waited_ = 0;
  bool counts_ = false;
  int32_t next_token_ = 0;
  std::vector<double> between_, during_;
};

struct Load {
  int32_t num_sequences = 256, prompt_tokens = 512, num_steps = 1000;
};

Request make_request(const Load& load, int32_t number, std::vector<RequestEvent>& made) {
  Request request;
  request.id = "req-" + std::to_string(number);
  request.prompt_token_ids.resize(static_cast<size_t>(load.prompt_tokens));
  std::iota(request.prompt_token_ids.begin(), request.prompt_token_ids.end(), number);  // no two alike
  request.sampling.max_tokens = load.num_steps;
  request.on_event = [&made](RequestEvent event) { made.push_back(std::move(event)); };
  return request;
}

double median(std::vector<double> values) {
  OCTET_CHECK(!values.empty());
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void run(const Load& load, EngineLoop::Overlap overlap) {
  constexpr int64_t kBlockSize = 16;
  const int64_t length = load.prompt_tokens + load.num_steps;
  const SchedulerOptions options{
      .blocks = {.num_blocks = load.num_sequences * (length / kBlockSize + 1), .block_size = kBlockSize},
      .max_model_len = length,
      .max_num_batched_tokens = int64_t{load.num_sequences} * load.prompt_tokens,
      .max_num_seqs = load.num_sequences};
  IdleRunner runner(static_cast<size_t>(load.num_sequences));
  std::vector<RequestEvent> made;  // by a step
  Queue<std::vector<RequestEvent>> events(1 << 10);
  std::thread reader([&] {
    for (int num_running = load.num_sequences; num_running > 0;) {
      const auto step = events.pop();
      for (const RequestEvent& event : *step) num_running -= event.finished;
    }
  });
  {
    EngineLoop loop(options, runner, overlap, [&] {
      std::vector<RequestEvent> step;
      step.swap(made);
      made.reserve(step.size());
      (void)events.push(std::move(step));
    });
    for (int32_t i = 0; i < load.num_sequences; ++i) (void)loop.submit(make_request(load, i, made));
    reader.join();
  }
  const double between = median(runner.between()), during = median(runner.during());
  std::printf("{\"sequences\": %d, \"overlap\": %s, \"steps\": %zu, \"us_per_step\": %.1f, \"us_ranks_wait\": %.1f}\n",
              load.num_sequences, overlap == EngineLoop::Overlap::kYes ? "true" : "false", runner.between().size(),
              between + during, between);
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  octet::Load load;
  int32_t* const fields[] = {&load.num_sequences, &load.prompt_tokens, &load.num_steps};
  for (int i = 1; i < argc && i <= 3; ++i) *fields[i - 1] = std::max(2, std::atoi(argv[i]));
  try {
    octet::run(load, octet::EngineLoop::Overlap::kYes);
    octet::run(load, octet::EngineLoop::Overlap::kNo);
  } catch (const octet::Error& error) {
    std::fprintf(stderr, "engine_bench: %s\n", error.what());
    return octet::exit_status(error.code());
  }
}
