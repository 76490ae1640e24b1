// How kernels share work among threads. Plain code, included before any target pragma.
#pragma once

#include <algorithm>
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

// Elements of element-wise work that pay for a fork (about 2 us).
inline constexpr int64_t kMinElementsPerThread = 16384;

// fn(thread, begin, end) over rows of `width` elements each; on the calling thread alone while there are few.
template <class Fn>
void for_rows(const Launch& launch, int64_t num_rows, int64_t width, Fn&& fn) {
  if (num_rows == 0) return;
  launch.threads->parallel_for(num_rows, std::max<int64_t>(1, kMinElementsPerThread / std::max<int64_t>(width, 1)), fn);
}

}  // namespace octet
