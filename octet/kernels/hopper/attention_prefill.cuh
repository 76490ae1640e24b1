// What attention_prefill's kernel is made of below its algorithm: barriers in shared memory and stores.
#pragma once

#include "octet/kernels/hopper/attention_plan.cuh"
#include "octet/kernels/hopper/warp_mma.cuh"

namespace octet {

__device__ inline void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ inline void arrive_barrier(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Until the barrier's phase of this parity is complete.
__device__ inline void wait_barrier(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra again;\n}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// This thread's ordinary stores to shared memory become visible to wgmma, after a barrier.
__device__ inline void fence_shared_for_wgmma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ inline void store_shared_16(uint32_t to, const uint4& value) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

// Between a wait for wgmma and the use of its sums: keeps the compiler from using them before the wait.
template <int kCount>
__device__ inline void use_after_wait(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// Two neighbours of row t of the result; with a static scale in 8 bits as well. inverse_scale 0: not.
__device__ inline void store_pair(const AttentionOutput& o, int64_t t, int column, float2 pair, float inverse_scale) {
  if (o.out_f32) {
    *reinterpret_cast<float2*>(static_cast<float*>(o.out) + t * o.out_stride + column) = pair;
  } else {
    *reinterpret_cast<uint32_t*>(static_cast<BF16*>(o.out) + t * o.out_stride + column) = pack_bf16(pair);
  }
  if (inverse_scale != 0.0f) {
    const uint16_t codes = pack_e4m3({pair.x * inverse_scale, pair.y * inverse_scale});
    *reinterpret_cast<uint16_t*>(o.quantized + t * o.quantized_stride + column) = codes;
  }
}

}  // namespace octet
