// Fork-join parallelism for kernels: a fixed team of threads that run one function together.
//
// A forward pass forks a few hundred times per token, so a fork must cost about a microsecond: workers spin for a short
// while before they sleep. The calling thread is member 0 of the team, so a pool of one thread has no workers and no
// cost.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace octet {

// What a member of a pool may do while it waits: useful, short, and dispensable.
class IdleWork {
 public:
  virtual ~IdleWork() = default;
  // Some 100 ns of it on behalf of member `thread`; false when there is nothing to do.
  virtual bool step(int thread) = 0;
};

class ThreadPool {
 public:
  // `idle`, if any, outlives the pool.
  explicit ThreadPool(int num_threads, IdleWork* idle = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs fn(thread) for every thread in [0, num_threads()) and waits for all. The first exception is rethrown here.
  // One caller at a time; fn must not call the pool again.
  template <class Fn>
  void run(Fn&& fn) {
    run_task(Task{&fn, [](void* object, int thread) { (*static_cast<std::remove_reference_t<Fn>*>(object))(thread); }});
  }

  // Splits [0, count) into pieces of `grain` and hands them out first come first served:
  // fn(thread, begin, end).
  template <class Fn>
  void parallel_for(int64_t count, int64_t grain, Fn&& fn) {
    if (count <= 0) return;
    if (count <= grain || num_threads() == 1) {
      fn(0, int64_t{0}, count);
      return;
    }
    std::atomic<int64_t> next{0};
    run([&](int thread) {
      for (int64_t begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < count;) {
        fn(thread, begin, std::min(begin + grain, count));
      }
    });
  }

  // The number of processors this process may use.
  static int default_num_threads();

 private:
  struct Task {
    void* object;
    void (*call)(void* object, int thread);
  };

  void run_task(Task task);
  void work(int thread);
  void run_member(int thread) noexcept;
  void wait_a_moment(int thread);

  IdleWork* idle_;
  std::vector<std::thread> workers_;
  Task task_{nullptr, nullptr};
  std::atomic<uint64_t> generation_{0};  // rises by one per fork; workers wait for it
  std::atomic<int> num_running_{0};      // workers that have not finished this fork
  std::atomic<int> num_asleep_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards sleeping and first_exception_
  std::condition_variable wake_;
  std::exception_ptr first_exception_;
};

}  // namespace octet
