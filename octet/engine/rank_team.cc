#include "octet/engine/rank_team.h"

#include <algorithm>
#include <utility>

#include "octet/base/error.h"

namespace octet {

RankTeam::RankTeam(const ModelSource& source, int world_size, int num_threads) : device_(source.device) {
  OCTET_CHECK(world_size >= 1);
  if (world_size == 1) {
    comms_.push_back(make_single_comm());
  } else {
    comms_ = make_cpu_comms(world_size);
  }
  const int threads_per_rank = std::max(1, num_threads / world_size);
  ranks_.resize(static_cast<size_t>(world_size));
  for (int rank = 0; rank < world_size && !runs_on_caller(); ++rank) {
    ranks_[static_cast<size_t>(rank)].thread = std::thread([this, rank] { serve(rank); });
  }
  try {
    begin([&, this](int rank) {
      const auto r = static_cast<size_t>(rank);
      ranks_[r].runner = std::make_unique<Runner>(source, *comms_[r], threads_per_rank);
    });
    end();
  } catch (...) {
    stop();
    throw;
  }
}

RankTeam::~RankTeam() { stop(); }

void RankTeam::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (Rank& rank : ranks_) {
    if (rank.thread.joinable()) rank.thread.join();
  }
}

void RankTeam::begin(std::function<void(int rank)> work) {
  {
    const std::lock_guard lock(mutex_);
    if (fault_) std::rethrow_exception(fault_);
    work_ = std::move(work);
    num_busy_ = world_size();
    ++generation_;
  }
  changed_.notify_all();
}

void RankTeam::end() {
  if (runs_on_caller()) return run_here();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return num_busy_ == 0; });
  if (fault_) std::rethrow_exception(fault_);
}

void RankTeam::run_here() {
  try {
    std::exchange(work_, nullptr)(0);
  } catch (...) {
    fault_ = std::current_exception();
    throw;
  }
}

void RankTeam::serve(int rank) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    lock.unlock();
    std::exception_ptr fault;
    try {
      work_(rank);  // not changed while a rank is busy
    } catch (...) {
      fault = std::current_exception();
    }
    lock.lock();
    if (fault && !fault_) {
      fault_ = fault;  // before the others, which the abort makes throw, can report theirs
      for (const auto& comm : comms_) comm->abort();
    }
    if (--num_busy_ == 0) changed_.notify_all();
  }
}

void RankTeam::run_on_all(const std::function<void(Runner&)>& work) {
  begin([&, this](int rank) { work(runner(rank)); });
  end();
}

void RankTeam::start(const StepPlan& plan) {
  if (queues_steps()) {
    make_current(device_);
    return runner(0).begin(plan);
  }
  begin([this, &plan](int rank) {
    runner(rank).begin(plan);
    StepResult result = runner(rank).finish();
    if (rank == 0) result_ = std::move(result);
  });
}

bool RankTeam::start_behind(const StepPlan& plan) {
  if (!queues_steps() || !runner(0).can_follow(plan)) return false;
  runner(0).begin(plan);
  return true;
}

StepResult RankTeam::wait() {
  if (queues_steps()) return runner(0).finish();
  end();
  return std::move(result_);
}

}  // namespace octet
