#include "octet/base/thread_pool.h"

#include <sched.h>

#include <utility>

#include "octet/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octet {
namespace {

// About 50 us of spinning: longer than the serial gaps between kernels.
constexpr int kSpins = 4000;
// Then some milliseconds of giving the processor away and asking again, which is longer than the gap between two steps
// and short enough not to burn a core when idle: to be woken costs 50 to 100 us on a virtual machine.
constexpr int kYields = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

int ThreadPool::default_num_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int num_threads, IdleWork* idle) : idle_(idle) {
  OCTET_CHECK(num_threads >= 1);
  workers_.reserve(static_cast<size_t>(num_threads) - 1);
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_member(int thread) noexcept {
  try {
    task_.call(task_.object, thread);
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!first_exception_) first_exception_ = std::current_exception();
  }
}

void ThreadPool::wait_a_moment(int thread) {
  if (idle_ == nullptr || !idle_->step(thread)) pause_cpu();
}

void ThreadPool::run_task(Task task) {
  task_ = task;
  num_running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  // Sequentially consistent with the worker's "I sleep" increment, so that one of the two sees the other.
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (num_asleep_.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  run_member(0);
  for (int spins = 0; num_running_.load(std::memory_order_acquire) > 0; ++spins) {
    // A worker may have lost its processor: after a while give it ours.
    if (spins > kSpins) {
      std::this_thread::yield();
    } else {
      wait_a_moment(0);
    }
  }
  if (first_exception_) std::rethrow_exception(std::exchange(first_exception_, nullptr));
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  while (true) {
    int spins = 0;
    while (generation_.load(std::memory_order_acquire) == seen && !stop_.load(std::memory_order_acquire)) {
      if (++spins < kSpins) {
        wait_a_moment(thread);
        continue;
      }
      if (spins < kSpins + kYields) {
        std::this_thread::yield();
        continue;
      }
      std::unique_lock lock(mutex_);
      num_asleep_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_seq_cst) != seen || stop_.load(); });
      num_asleep_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (generation_.load(std::memory_order_acquire) == seen) return;  // stopped
    ++seen;
    run_member(thread);
    num_running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace octet
