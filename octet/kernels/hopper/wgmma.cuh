// Hopper's warpgroup multiplication (wgmma), asynchronous, on operands in shared memory as the copy engine leaves them:
// rows of one 128-byte chunk each, in the 128-byte swizzle (octet/kernels/hopper/tma.cuh).
//
// Between the first wgmma and the wait for it no instruction may touch the sums.
#pragma once

#include <cstdint>
#include <type_traits>

#include "octet/tensor/tensor.h"

namespace octet {

// The bytes of a row that one instruction multiplies: 32 values of 8 bits or 16 of 16.
inline constexpr int kWgmmaBytes = 32;

// Eights of rows, `stride` bytes from one to the next; the rows of an eight lie one after the other. Where the address
// is in the swizzle's pattern, which begins at every 1,024 bytes, is of no matter. The operand k steps on: + k *
// kWgmmaBytes / 16.
__device__ inline uint64_t wgmma_operand(uint32_t shared_address, int stride = 1024) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  const uint64_t eights = static_cast<uint64_t>(stride / 16) << 32;
  return kSwizzle128 | eights | uint64_t{1} << 16 | (shared_address & 0x3ffff) >> 4;
}

__device__ inline void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `kPending` of the committed groups are still running.
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// What the instruction adds products in: INT8's exactly.
template <class Element>
using WgmmaSum = std::conditional_t<std::is_same_v<Element, int8_t>, int32_t, float>;

// The instruction's operands are R sums, named %0 .. %(R - 1), and then a, b and whether to accumulate.
#define OCTET_SUM_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define OCTET_SUM_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define OCTET_SUM_NAMES_32 \
  OCTET_SUM_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define OCTET_SUM_NAMES_48 \
  OCTET_SUM_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define OCTET_SUM_NAMES_64 \
  OCTET_SUM_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define OCTET_SUM_NAMES_80 \
  OCTET_SUM_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define OCTET_SUM_NAMES_88 OCTET_SUM_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define OCTET_SUM_NAMES_96 OCTET_SUM_NAMES_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define OCTET_SUM_NAMES_128                                                                                    \
  OCTET_SUM_NAMES_96                                                                                           \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, " \
  "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// With OCTET_SUM, their constraint.
#define OCTET_8_SUMS(i)                                                                                \
  OCTET_SUM(d[i]), OCTET_SUM(d[i + 1]), OCTET_SUM(d[i + 2]), OCTET_SUM(d[i + 3]), OCTET_SUM(d[i + 4]), \
      OCTET_SUM(d[i + 5]), OCTET_SUM(d[i + 6]), OCTET_SUM(d[i + 7])
#define OCTET_SUMS_8 OCTET_8_SUMS(0)
#define OCTET_SUMS_16 OCTET_SUMS_8, OCTET_8_SUMS(8)
#define OCTET_SUMS_32 OCTET_SUMS_16, OCTET_8_SUMS(16), OCTET_8_SUMS(24)
#define OCTET_SUMS_48 OCTET_SUMS_32, OCTET_8_SUMS(32), OCTET_8_SUMS(40)
#define OCTET_SUMS_64 OCTET_SUMS_48, OCTET_8_SUMS(48), OCTET_8_SUMS(56)
#define OCTET_SUMS_80 OCTET_SUMS_64, OCTET_8_SUMS(64), OCTET_8_SUMS(72)
#define OCTET_SUMS_88 OCTET_SUMS_80, OCTET_8_SUMS(80)
#define OCTET_SUMS_96 OCTET_SUMS_88, OCTET_8_SUMS(88)
#define OCTET_SUMS_128 OCTET_SUMS_96, OCTET_8_SUMS(96), OCTET_8_SUMS(104), OCTET_8_SUMS(112), OCTET_8_SUMS(120)
#define OCTET_WGMMA_IF "{\n.reg .pred accumulating;\nsetp.ne.b32 accumulating, "
#define OCTET_WGMMA_OP ", 0;\nwgmma.mma_async.sync.aligned.m64n"
#define OCTET_WGMMA(sums, columns, a_name, b_name, accumulate_name)                                                   \
  template <class Element>                                                                                            \
  __device__ inline void wgmma(OCTET_SUM_TYPE(&d)[sums], uint64_t a, uint64_t b, int accumulate) {                    \
    if constexpr (std::is_same_v<Element, F8E4M3>) {                                                                  \
      asm volatile(OCTET_WGMMA_IF accumulate_name OCTET_WGMMA_OP columns "k32.f32.e4m3.e4m3 {" OCTET_SUM_NAMES_##sums \
                   "}, " a_name ", " b_name ", accumulating, 1, 1;\n}\n"                                              \
                   : OCTET_SUMS_##sums                                                                                \
                   : "l"(a), "l"(b), "r"(accumulate));                                                                \
    } else if constexpr (std::is_same_v<Element, int8_t>) {                                                           \
      asm volatile(OCTET_WGMMA_IF accumulate_name OCTET_WGMMA_OP columns "k32.s32.s8.s8 {" OCTET_SUM_NAMES_##sums     \
                   "}, " a_name ", " b_name ", accumulating;\n}\n"                                                    \
                   : OCTET_SUMS_##sums                                                                                \
                   : "l"(a), "l"(b), "r"(accumulate));                                                                \
    } else if constexpr (std::is_same_v<Element, F16>) {                                                              \
      asm volatile(OCTET_WGMMA_IF accumulate_name OCTET_WGMMA_OP columns "k16.f32.f16.f16 {" OCTET_SUM_NAMES_##sums   \
                   "}, " a_name ", " b_name ", accumulating, 1, 1, 0, 0;\n}\n"                                        \
                   : OCTET_SUMS_##sums                                                                                \
                   : "l"(a), "l"(b), "r"(accumulate));                                                                \
    } else {                                                                                                          \
      asm volatile(OCTET_WGMMA_IF accumulate_name OCTET_WGMMA_OP columns "k16.f32.bf16.bf16 {" OCTET_SUM_NAMES_##sums \
                   "}, " a_name ", " b_name ", accumulating, 1, 1, 0, 0;\n}\n"                                        \
                   : OCTET_SUMS_##sums                                                                                \
                   : "l"(a), "l"(b), "r"(accumulate));                                                                \
    }                                                                                                                 \
  }
#define OCTET_WGMMAS                          \
  OCTET_WGMMA(8, "16", "%8", "%9", "%10")     \
  OCTET_WGMMA(16, "32", "%16", "%17", "%18")  \
  OCTET_WGMMA(32, "64", "%32", "%33", "%34")  \
  OCTET_WGMMA(48, "96", "%48", "%49", "%50")  \
  OCTET_WGMMA(64, "128", "%64", "%65", "%66") \
  OCTET_WGMMA(80, "160", "%80", "%81", "%82") \
  OCTET_WGMMA(88, "176", "%88", "%89", "%90") \
  OCTET_WGMMA(96, "192", "%96", "%97", "%98") \
  OCTET_WGMMA(128, "256", "%128", "%129", "%130")

// d[64 x 2R] (+)= a[64 x 32 bytes] * b[2R x 32 bytes]^T for R sums a thread: lane (g, t) of warp w has in d[4j..4j+3]
// the columns 8j + 2t and 8j + 2t + 1 of row 16w + g, then those of row 16w + g + 8.
#define OCTET_SUM "+f"
#define OCTET_SUM_TYPE float
OCTET_WGMMAS
#undef OCTET_SUM
#undef OCTET_SUM_TYPE
#define OCTET_SUM "+r"
#define OCTET_SUM_TYPE int32_t
OCTET_WGMMAS
#undef OCTET_SUM
#undef OCTET_SUM_TYPE
#undef OCTET_WGMMA
#undef OCTET_WGMMAS

// sums (+)= a 64-row chunk of 128 bytes times a chunk of the other operand; committed as one group.
template <class Element, int kSums>
__device__ void wgmma_chunk(WgmmaSum<Element> (&sums)[kSums], uint64_t a, uint64_t b, int accumulate) {
  wgmma_begin();
#pragma unroll
  for (int k = 0; k < 128 / kWgmmaBytes; ++k) {
    wgmma<Element>(sums, a + k * (kWgmmaBytes / 16), b + k * (kWgmmaBytes / 16), accumulate + k);
  }
  wgmma_commit();
}

// The instruction adds E4M3 products with 14 bits only; over 14,336 of them the error was 3e-3 in the norm, with sums
// over one chunk added up apart 1.4e-4, over two 2.2e-4. BF16 products it adds in F32.
template <class Element>
inline constexpr bool kAddsChunks = std::is_same_v<Element, F8E4M3>;

}  // namespace octet
