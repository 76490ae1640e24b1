// RankTeam: one thread per rank, each with its Runner, doing the same things at the same time. On GPUs, one a rank from
// the source's device on, start() queues a step and wait() takes what comes out, so that the next one can be queued
// behind it; on the CPU wait() waits for the threads that compute it. The steps of a single rank need no thread: on a
// GPU nothing is to be waited for in between, and the CPU's kernels take all processors anyway, where a thread of its
// own would add two wake-ups to every step (some 100 us each on a virtual machine).
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "octet/engine/runner.h"
#include "octet/engine/step_runner.h"

namespace octet {

class RankTeam final : public StepRunner {
 public:
  // Starts the threads; every rank makes its Runner on its own thread with an equal share of num_threads.
  // Rethrows what the first failing rank threw.
  RankTeam(const ModelSource& source, int world_size, int num_threads);
  ~RankTeam() override;

  // The device of a rank, when the first has `first`.
  static Device device_of(Device first, int rank) {
    return first.kind == DeviceKind::kCpu ? first : Device{.kind = first.kind, .index = first.index + rank};
  }

  int world_size() const { return static_cast<int>(ranks_.size()); }
  // Only while no step runs.
  Runner& runner(int rank) { return *ranks_[static_cast<size_t>(rank)].runner; }

  // Runs work on every rank's thread and waits. When a rank throws, the others are released from their collectives, and
  // the exception of the first is rethrown; nothing can run afterwards.
  void run_on_all(const std::function<void(Runner&)>& work);

  void start(const StepPlan& plan) override;
  bool start_behind(const StepPlan& plan) override;
  StepResult wait() override;

 private:
  struct Rank {
    std::unique_ptr<Runner> runner;
    std::thread thread;
  };

  bool queues_steps() const { return device_.kind == DeviceKind::kCuda; }
  bool runs_on_caller() const { return world_size() == 1; }
  void begin(std::function<void(int rank)> work);
  void end();
  void run_here();
  void queue(const StepPlan& plan);
  std::exception_ptr named(int rank, const std::exception_ptr& fault) const;
  void serve(int rank);
  void stop();

  Device device_;
  std::vector<std::unique_ptr<Comm>> comms_;  // one per rank; outlive the runners
  std::vector<Rank> ranks_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::function<void(int rank)> work_;
  uint64_t generation_ = 0;
  int num_busy_ = 0;
  bool stop_ = false;
  std::exception_ptr fault_;
  StepRows rows_;  // of the step that begins
  StepResult result_;
};

}  // namespace octet
