#include "octet/engine/rank_team.h"

#include <algorithm>
#include <utility>

#include "octet/base/error.h"

namespace octet {

namespace {

std::vector<std::unique_ptr<Comm>> make_comms(Device first, int world_size) {
  if (world_size > 1) {
    return first.kind == DeviceKind::kCuda ? make_gpu_comms(gpus_of_ranks(first, world_size))
                                           : make_cpu_comms(world_size);
  }
  std::vector<std::unique_ptr<Comm>> comms;
  comms.push_back(make_single_comm());
  return comms;
}

}  // namespace

RankTeam::RankTeam(const ModelSource& source, int world_size, int num_threads)
    : device_(source.device), comms_(make_comms(source.device, world_size)) {
  const int threads_per_rank = std::max(1, num_threads / world_size);
  ranks_.resize(static_cast<size_t>(world_size));
  for (int rank = 0; rank < world_size && !runs_on_caller(); ++rank) {
    ranks_[static_cast<size_t>(rank)].thread = std::thread([this, rank] { serve(rank); });
  }
  try {
    begin([&, this](int rank) {
      ModelSource own = source;
      own.device = device_of(source.device, rank);
      const auto r = static_cast<size_t>(rank);
      ranks_[r].runner = std::make_unique<Runner>(own, *comms_[r], threads_per_rank);
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
    if (queues_steps()) make_current(device_);
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
      fault = named(rank, std::current_exception());
    }
    lock.lock();
    if (fault && !fault_) {
      fault_ = fault;  // before the others, which the abort makes throw, can report theirs
      for (const auto& comm : comms_) comm->abort();
    }
    if (--num_busy_ == 0) changed_.notify_all();
  }
}

// What ended a rank, saying which one where it may be its own affair.
std::exception_ptr RankTeam::named(int rank, const std::exception_ptr& fault) const {
  const auto with_rank = [&](ErrorCode code, const char* text) {
    const Device device = device_of(device_, rank);
    return std::make_exception_ptr(Error(code, device.kind == DeviceKind::kCpu
                                                   ? fmt::format("rank {}: {}", rank, text)
                                                   : fmt::format("rank {} ({}): {}", rank, device_name(device), text)));
  };
  try {
    std::rethrow_exception(fault);
  } catch (const Error& error) {
    const ErrorCode code = error.code();
    const bool own = code == ErrorCode::kInternal || code == ErrorCode::kMemory || code == ErrorCode::kIo;
    return own ? with_rank(code, error.what()) : fault;
  } catch (const std::exception& error) {
    return with_rank(ErrorCode::kInternal, error.what());
  }
}

void RankTeam::run_on_all(const std::function<void(Runner&)>& work) {
  begin([&, this](int rank) { work(runner(rank)); });
  end();
}

void RankTeam::start(const StepPlan& plan) {
  if (queues_steps()) return queue(plan);
  rows_ = runner(0).prepare(plan);
  begin([this, &plan](int rank) {
    runner(rank).begin(plan, rows_);
    StepResult result = runner(rank).finish();
    if (rank == 0) result_ = std::move(result);
  });
}

bool RankTeam::start_behind(const StepPlan& plan) {
  if (!queues_steps() || !runner(0).can_follow(plan)) return false;
  queue(plan);
  return true;
}

void RankTeam::queue(const StepPlan& plan) {
  rows_ = runner(0).prepare(plan);
  run_on_all([&](Runner& runner) { runner.begin(plan, rows_); });
}

StepResult RankTeam::wait() {
  if (queues_steps()) {
    begin([this](int rank) {
      StepResult result = runner(rank).finish();
      if (rank == 0) result_ = std::move(result);
    });
  }
  end();
  return std::move(result_);
}

}  // namespace octet
