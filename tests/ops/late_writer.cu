#include <algorithm>

#include "octet/kernels/cuda/launch.cuh"
#include "tests/ops/late_writer.h"

namespace octet::ops_test {
namespace {

constexpr int kThreads = 512;
constexpr size_t kMaxWrites = 16;
constexpr uint64_t kNanoseconds = 30'000;

struct Writes {
  LateWrite of[kMaxWrites];
  int count;
};

__device__ uint64_t nanoseconds() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

__global__ void write(const Writes writes) {
  start_next();
  wait_for_previous();
  const uint64_t start = nanoseconds();
  while (nanoseconds() - start < kNanoseconds) {
  }
  for (int i = 0; i < writes.count; ++i) {
    const LateWrite& w = writes.of[i];
    const int64_t num_quads = w.num_bytes / 16;
    for (int64_t k = threadIdx.x; k < num_quads; k += kThreads) {
      reinterpret_cast<uint4*>(w.to)[k] = reinterpret_cast<const uint4*>(w.from)[k];
    }
    for (int64_t k = 16 * num_quads + threadIdx.x; k < w.num_bytes; k += kThreads) w.to[k] = w.from[k];
  }
}

}  // namespace

void write_late(const std::vector<LateWrite>& writes, Stream stream) {
  OCTET_CHECK(writes.size() <= kMaxWrites);
  Writes arguments{.of = {}, .count = static_cast<int>(writes.size())};
  std::copy(writes.begin(), writes.end(), arguments.of);
  launch_kernel("late_writer", Launch{.stream = stream}, {.grid = dim3(1), .block = dim3(kThreads)}, write, arguments);
}

}  // namespace octet::ops_test
