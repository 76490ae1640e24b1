// What a GPU reads at most: the probe beside which benchmarks give their bandwidth.
#pragma once

#include <cstdint>

namespace octet {
namespace {

// Reads `count` times 16 bytes. `never` is written to with a probability of 2^-32, so that the reads stay.
__global__ void read_kernel(const uint4* pool, int64_t count, uint32_t* never) {
  constexpr int kUnroll = 8;
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  uint32_t seen = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i + (kUnroll - 1) * threads < count;
       i += kUnroll * threads) {
    uint4 v[kUnroll];
    for (int j = 0; j < kUnroll; ++j) v[j] = __ldcs(pool + i + j * threads);
    for (int j = 0; j < kUnroll; ++j) seen ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (seen == 0x12345678u) *never = seen;
}

}  // namespace
}  // namespace octet
