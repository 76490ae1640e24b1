// RankTeam: one thread per rank, each with its Runner, doing the same things at the same time. The steps of a
// single rank need none: on a GPU start() queues them and wait() takes what comes out; on the CPU wait() runs them,
// since its kernels take all processors anyway and a thread of its own would add two wake-ups to every step (some 100
// us each on a virtual machine).
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

  bool queues_steps() const { return device_.kind == DeviceKind::kCuda && world_size() == 1; }
  bool runs_on_caller() const { return device_.kind == DeviceKind::kCpu && world_size() == 1; }
  void begin(std::function<void(int rank)> work);
  void end();
  void run_here();
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
  StepResult result_;
};

}  // namespace octet
