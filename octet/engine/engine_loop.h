// EngineLoop: the engine's thread. Takes requests and aborts from any thread, drives scheduler and step runner, and
// calls the requests' on_event.
//
// With overlap the next step is planned while the present one runs, so that the ranks wait only for commit and
// reconcile.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/engine/scheduler.h"
#include "octet/engine/step_runner.h"

namespace octet {

class EngineLoop {
 public:
  enum class Overlap : uint8_t { kNo, kYes };
  // Starts the thread. `runner` is used by it alone from now on and outlives the loop.
  // `on_delivered`: called after the on_event calls of each step, like them on the loop's thread and without its lock.
  // `on_step`: after each step, likewise.
  EngineLoop(const SchedulerOptions& options, StepRunner& runner, Overlap overlap,
             std::function<void()> on_delivered = nullptr, std::function<void(int64_t num_tokens)> on_step = nullptr);
  // Ends every request with kAbort.
  ~EngineLoop();

  // Throws Error{kInvalid} for what the scheduler refuses and for an id that is in use.
  SubmitResult submit(Request request);
  void abort(const std::string& request_id);
  void abort_sequence(const std::string& request_id, int32_t index);
  void abort_waiting(const std::string& request_id);
  void reset_prefix_cache();
  // Runs `work`, which may use the step runner, on the loop's thread once no request is left, and waits for its end.
  // What it throws is thrown here. Not from a callback of a request.
  void when_idle(std::function<void()> work);
  EngineMetrics metrics() const;
  // Why the engine stopped, when a step failed.
  std::optional<std::string> fault() const;

 private:
  // What the loop remembers of a living request, besides the scheduler's sequences.
  struct Live {
    RequestTimes times;
    std::vector<double> cumulative_logprobs;        // by index
    std::vector<PositionLogprobs> prompt_logprobs;  // until they are sent
    uint64_t batch = 0;                             // of events, the last it has one in
    size_t event = 0;                               // its place there
  };
  using Addressed = std::pair<std::shared_ptr<const Request>, RequestEvent>;

  void run();
  // False when the loop shall end.
  bool wait_for_work(std::unique_lock<std::mutex>& lock, StepPlan& plan);
  void run_step(StepPlan& plan);
  void stop_with(const std::string& fault);
  void note_starts(const StepPlan& plan);
  void collect(std::vector<SequenceUpdate> updates);
  void add_delta(SequenceUpdate& update, int64_t now, Live& live, RequestEvent& event);
  void deliver(std::unique_lock<std::mutex>& lock);
  void publish_metrics();

  StepRunner& runner_;
  const Overlap overlap_;
  const std::function<void()> on_delivered_;
  const std::function<void(int64_t)> on_step_;

  mutable std::mutex mutex_;  // guards all below; never held while a step runs or a callback is called
  std::condition_variable wake_;
  Scheduler scheduler_;
  std::unordered_map<const Request*, Live> live_;
  std::unordered_map<std::string, std::shared_ptr<const Request>> by_id_;
  std::vector<Addressed> events_;  // made, not yet delivered
  uint64_t batch_ = 1;             // the number of batches of events delivered, plus one
  StepPlan next_;                  // planned while the last step ran
  bool next_started_ = false;      // behind that step
  EngineMetrics metrics_;
  std::packaged_task<void()> idle_work_;
  bool stopping_ = false;
  std::optional<std::string> fault_;

  mutable std::mutex published_mutex_;  // guards published_, and is held for no longer than a copy of it
  EngineMetrics published_;             // what metrics() answers

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace octet
