// WorkerPool: threads for what would hold up the I/O thread: parsing bodies, rendering templates, tokenising.
#pragma once

#include <pthread.h>

#include <functional>
#include <thread>
#include <vector>

#include "octet/base/queue.h"

namespace octet {

class WorkerPool {
 public:
  WorkerPool(int num_threads, size_t max_waiting) : queue_(max_waiting) {
    for (int i = 0; i < num_threads; ++i) {
      threads_.emplace_back([this] {
        pthread_setname_np(pthread_self(), "octet-worker");
        while (auto work = queue_.pop()) (*work)();
      });
    }
  }
  ~WorkerPool() {  // what waits is still done
    queue_.close();
    for (std::thread& thread : threads_) thread.join();
  }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False when too much waits already. `work` must not throw.
  [[nodiscard]] bool try_run(std::function<void()> work) { return queue_.try_push(std::move(work)); }

 private:
  Queue<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace octet
