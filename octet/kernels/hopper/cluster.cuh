// CTAs of a cluster: their barrier and each other's shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace octet {

__device__ inline int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of all CTAs of the cluster.
__device__ inline void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Arrives at the barrier at the same place in CTA `rank` of the cluster. Not release.cluster, whose fence of all memory
// would cost a microsecond: nothing was written, and wgmma's reads are over.
__device__ inline void arrive_at(uint32_t barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
// To the same place in CTA `rank`, seen there after a cluster_barrier().
__device__ inline void store_at(uint32_t address, float4 value, int rank) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.v4.f32 [there], {%2, %3, %4, %5};\n}\n" ::"r"(address),
      "r"(rank), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
      : "memory");
}
__device__ inline void store_at(uint32_t address, int4 value, int rank) {
  store_at(
      address,
      make_float4(__int_as_float(value.x), __int_as_float(value.y), __int_as_float(value.z), __int_as_float(value.w)),
      rank);
}

}  // namespace octet
