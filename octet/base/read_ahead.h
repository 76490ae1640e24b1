// Weights fetched before they are needed. Every step reads the same matrices in the same order, each thread its own
// share of each. Between two matrices, while a thread waits for the others or for serial work, the memory would lie
// idle; instead the thread fetches the beginning of its share of the next matrix into its own cache (L2).
//
// The order is learned: a matrix's successor is the one that was read after it the last time. A wrong guess costs the
// bytes that were fetched in vain, nothing else.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "octet/base/thread_pool.h"

namespace octet {

class ReadAhead final : public IdleWork {
 public:
  // Of one thread, in memory.
  struct Share {
    const std::byte* begin;
    const std::byte* end;
  };
  struct Matrix {
    std::vector<Share> shares;  // by thread
    std::atomic<const Matrix*> successor{nullptr};
  };

  explicit ReadAhead(int num_threads) : slots_(static_cast<size_t>(num_threads)) {}

  // The matrix at `data` is about to be read; share_of(thread) says who reads what, the same every time. By the thread
  // that forks, before it does.
  template <class ShareOf>
  const Matrix* begin(const std::byte* data, ShareOf&& share_of) {
    Matrix*& matrix = by_data_[data];
    if (matrix == nullptr) {
      matrix = &matrices_.emplace_back();
      for (size_t i = 0; i < slots_.size(); ++i) matrix->shares.push_back(share_of(static_cast<int>(i)));
    }
    if (last_ != nullptr) last_->successor.store(matrix, std::memory_order_release);
    last_ = matrix;
    return matrix;
  }
  // By every thread once its share of the matrix is read.
  void end(const Matrix* matrix, int thread);

  // Fetches a few lines; false when there is enough.
  bool step(int thread) override;

 private:
  // What a thread still has to fetch. Only that thread uses it.
  struct alignas(64) Slot {
    const std::byte* next = nullptr;
    const std::byte* end = nullptr;
  };
  std::vector<Slot> slots_;
  std::deque<Matrix> matrices_;
  std::unordered_map<const std::byte*, Matrix*> by_data_;
  Matrix* last_ = nullptr;
};

}  // namespace octet
