// Latent attention's second product (wgmma): weights and values both in shared memory, values as the keys that they
// are. Operands as in attention_wgmma.cuh.
#pragma once

#include "octet/kernels/hopper/attention_wgmma.cuh"

namespace octet {

#define OCTET_SUM "+f"
// d [64 x 256] += a [64 x 16] . b [16 x 256]: a wgmma_operand, b a transposed_operand.
template <class Element>
__device__ inline void wgmma_latent_values(float (&d)[128], uint64_t a, uint64_t b) {
  static_assert(std::is_same_v<Element, BF16> || std::is_same_v<Element, F16>);
  if constexpr (std::is_same_v<Element, BF16>) {
    asm volatile(OCTET_WGMMA_IF "1" OCTET_WGMMA_OP "256k16.f32.bf16.bf16 {" OCTET_SUM_NAMES_128
                                "}, %128, %129, accumulating, 1, 1, 0, 1;\n}\n"
                 : OCTET_SUMS_128
                 : "l"(a), "l"(b));
  } else {
    asm volatile(OCTET_WGMMA_IF "1" OCTET_WGMMA_OP "256k16.f32.f16.f16 {" OCTET_SUM_NAMES_128
                                "}, %128, %129, accumulating, 1, 1, 0, 1;\n}\n"
                 : OCTET_SUMS_128
                 : "l"(a), "l"(b));
  }
}
#undef OCTET_SUM

}  // namespace octet
