// index[t] = the first place of the largest value of row t, -1 when the row is broken (octet/ops/argmax.h).
//
// One cluster of 8 CTAs a row: one row alone (a batch of one sequence) is then read by 8 SMs. A value and its place
// make one 64-bit key whose order is "larger value, then earlier place", so that the result is a maximum, exact in any
// order of combining. Values that break a row make the largest key.
#include <cooperative_groups.h>

#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/ops/argmax.h"

namespace octet {
namespace {

constexpr int kClusterCtas = 8;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kVector = 4;  // floats a load

using Key = unsigned long long;
constexpr Key kBrokenKey = ~Key{0};

std::string declines(const ArgmaxOp& op, const Launch&) {
  return op.x.dim(0) > 65535 ? fmt::format("{} rows, takes at most 65535", op.x.dim(0)) : std::string();
}

__device__ Key key_of(float value, int index) {
  if (!(value < __int_as_float(0x7f800000))) return kBrokenKey;  // NaN, plus infinity
  const unsigned bits = __float_as_uint(value + 0.0f);           // -0 counts as 0
  const unsigned ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<Key>(ordered) << 32) | (0xffffffffu - static_cast<unsigned>(index));
}

__device__ int index_of(Key key) {
  constexpr unsigned kMinusInfinity = ~0xff800000u;
  if (key == kBrokenKey || static_cast<unsigned>(key >> 32) <= kMinusInfinity) return kBrokenRow;
  return static_cast<int>(0xffffffffu - static_cast<unsigned>(key));
}

__device__ Key larger(Key a, Key b) { return a > b ? a : b; }

__device__ Key warp_largest(Key key) {
  for (int offset = 16; offset > 0; offset /= 2) key = larger(key, __shfl_xor_sync(0xffffffffu, key, offset));
  return key;
}

__device__ Key thread_largest(const float* row, int begin, int end) {
  Key key = 0;
  int i = begin + kVector * static_cast<int>(threadIdx.x);
  if (reinterpret_cast<uintptr_t>(row) % sizeof(float4) == 0) {  // begin is a multiple of kVector
    for (; i + kVector <= end; i += kVector * kThreads) {
      const float4 values = *reinterpret_cast<const float4*>(row + i);
      key = larger(key, larger(key_of(values.x, i), key_of(values.y, i + 1)));
      key = larger(key, larger(key_of(values.z, i + 2), key_of(values.w, i + 3)));
    }
  }
  for (; i < end; i += kVector * kThreads) {
    for (int j = i; j < min(i + kVector, end); ++j) key = larger(key, key_of(row[j], j));
  }
  return key;
}

__global__ void __cluster_dims__(kClusterCtas) __launch_bounds__(kThreads)
    argmax_kernel(int* index, const float* x, int64_t row_stride, int num_columns) {
  __shared__ Key warp_keys[kWarps];
  __shared__ Key cta_keys[kClusterCtas];  // CTA 0 collects
  const auto cluster = cooperative_groups::this_cluster();
  const int cta = static_cast<int>(cluster.block_rank());
  const int row = static_cast<int>(blockIdx.y);
  const int part = (num_columns + kClusterCtas * kVector - 1) / (kClusterCtas * kVector) * kVector;
  const int begin = min(cta * part, num_columns);
  wait_for_previous();
  start_next();
  const Key key = warp_largest(thread_largest(x + row * row_stride, begin, min(begin + part, num_columns)));
  if (threadIdx.x % 32 == 0) warp_keys[threadIdx.x / 32] = key;
  cluster.sync();  // and CTA 0 has started
  if (threadIdx.x == 0) {
    Key largest = 0;
    for (int warp = 0; warp < kWarps; ++warp) largest = larger(largest, warp_keys[warp]);
    *cluster.map_shared_rank(&cta_keys[cta], 0) = largest;
  }
  cluster.sync();
  if (cta != 0 || threadIdx.x != 0) return;
  Key largest = 0;
  for (int i = 0; i < kClusterCtas; ++i) largest = larger(largest, cta_keys[i]);
  index[row] = index_of(largest);
}

void run(const ArgmaxOp& op, const Launch& launch) {
  if (op.x.dim(0) == 0) return;
  const LaunchShape shape{.grid = dim3(kClusterCtas, static_cast<unsigned>(op.x.dim(0))), .block = dim3(kThreads)};
  launch_kernel("cuda.argmax", launch, shape, argmax_kernel, op.index.data<int32_t>(), op.x.data<float>(),
                op.x.row_stride, static_cast<int>(op.x.dim(1)));
}

}  // namespace

Kernel<ArgmaxOp> cuda_argmax() { return {.name = "cuda.argmax", .declines = declines, .run = run}; }

}  // namespace octet
