#include "machine_probe.h"

#include <atomic>
#include <chrono>
#include <vector>

#include "octet/device/device.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octet {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::atomic<float> sink;  // keeps results alive

#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] float read_all(const float* p, int64_t count) {
  __m256 sums[8] = {};
  for (int64_t i = 0; i + 64 <= count; i += 64) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sums[j] = _mm256_add_ps(sums[j], _mm256_loadu_ps(p + i + 8 * j));
  }
  for (int j = 1; j < 8; ++j) sums[0] = _mm256_add_ps(sums[0], sums[j]);
  return _mm256_cvtss_f32(sums[0]);
}

[[gnu::target("avx2,fma")]] float multiply_add(int64_t rounds) {
  __m256 sums[12];
  for (int j = 0; j < 12; ++j) sums[j] = _mm256_set1_ps(static_cast<float>(j));  // equal chains would be merged
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sums[j] = _mm256_fmadd_ps(sums[j], a, b);
  }
  for (int j = 1; j < 12; ++j) sums[0] = _mm256_add_ps(sums[0], sums[j]);
  return _mm256_cvtss_f32(sums[0]);
}
#else
float read_all(const float* p, int64_t count) {
  float sums[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += p[i + j];
  }
  return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}
float multiply_add(int64_t) { return 0.0f; }
#endif

}  // namespace

double read_bandwidth(ThreadPool& threads) {
  constexpr int64_t kCount = int64_t{64} << 20;
  static const std::vector<float> memory(kCount, 1.0f);
  double best = 1e9;
  for (int pass = 0; pass < 4; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    threads.run([&](int thread) {
      const int64_t share = kCount / threads.num_threads();
      sink = read_all(memory.data() + thread * share, share);
    });
    best = std::min(best, seconds_since(start));
  }
  return kCount * sizeof(float) / best;
}

double peak_flops(ThreadPool& threads) {
  if (!cpu_features().avx2_fma) return 0.0;
  constexpr int64_t kRounds = 2'000'000;
  double best = 1e9;
  for (int pass = 0; pass < 4; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    threads.run([&](int) { sink = multiply_add(kRounds); });
    best = std::min(best, seconds_since(start));
  }
  return 12.0 * 8.0 * 2.0 * kRounds * threads.num_threads() / best;
}

}  // namespace octet
