// How kernels share work among threads. Plain code, included before any target pragma.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "octet/ops/op.h"

namespace octet {

// The contiguous share of `thread` in [0, count), in multiples of `grain`: weights stream from one place per thread.
inline std::pair<int64_t, int64_t> share_of(int64_t count, int64_t grain, int thread, int num_threads) {
  const int64_t grains = (count + grain - 1) / grain;
  return {std::min(grains * thread / num_threads * grain, count),
          std::min(grains * (thread + 1) / num_threads * grain, count)};
}

// [0, count) in shares of one thread each, handed out in pieces of `grain`: a thread takes its own share piece by
// piece, so that it streams from one place, and then what is left of the others': a thread that lost its processor for
// a while does not hold up the rest.
class StealingShares {
 public:
  StealingShares(int64_t count, int64_t grain, int num_threads)
      : grain_(grain), num_shares_(std::min(num_threads, kMaxShares)) {
    for (int i = 0; i < num_shares_; ++i) {
      const auto [begin, end] = share_of(count, grain, i, num_shares_);
      shares_[i].next.store(begin, std::memory_order_relaxed);
      shares_[i].end = end;
    }
  }

  // fn(begin, end) for every piece that this thread gets.
  template <class Fn>
  void run(int thread, Fn&& fn) {
    for (int i = 0; i < num_shares_; ++i) {
      Share& share = shares_[(thread + i) % num_shares_];
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const int64_t begin = share.next.fetch_add(grain_, std::memory_order_relaxed);
        if (begin < share.end) fn(begin, std::min(begin + grain_, share.end));
      }
    }
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  static constexpr int kMaxShares = 64;  // more threads begin with somebody else's

  Share shares_[kMaxShares];
  int64_t grain_;
  int num_shares_;
};

// Elements of element-wise work that pay for a fork (about 2 us).
inline constexpr int64_t kMinElementsPerThread = 16384;

// fn(thread, begin, end) over rows of `width` elements each; on the calling thread alone while there are few.
template <class Fn>
void for_rows(const Launch& launch, int64_t num_rows, int64_t width, Fn&& fn) {
  if (num_rows == 0) return;
  launch.threads->parallel_for(num_rows, std::max<int64_t>(1, kMinElementsPerThread / std::max<int64_t>(width, 1)), fn);
}

}  // namespace octet
