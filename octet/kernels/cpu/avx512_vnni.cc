// The rows for AVX-512 with VNNI: integer products alone. Everything included above the pragma is compiled for plain
// x86-64, everything below it for AVX-512 with VNNI.
#include "octet/kernels/cpu/cpu.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "octet/kernels/cpu/declines.h"
#include "octet/kernels/cpu/experts.h"
#include "octet/kernels/cpu/matmul_parts.h"
#include "octet/kernels/cpu/split.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12 warns about its own _mm512_undefined_epi32
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#endif

#include "octet/kernels/cpu/avx512_vnni_vector.h"
#include "octet/kernels/cpu/matmul_i8.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace octet {

void add_avx512_vnni_kernels(KernelTable& table) {
  add_matmul_i8_row<NeedsAvx512Vnni>(table, "cpu.avx512_vnni.matmul_i8", &run_matmul_i8<Avx512Vnni>);
  add_expert_matmul_i8_row<NeedsAvx512Vnni, &run_matmul_i8<Avx512Vnni>>(table, "cpu.avx512_vnni.expert_matmul_i8");
}

}  // namespace octet

#else

namespace octet {

void add_avx512_vnni_kernels(KernelTable&) {}

}  // namespace octet

#endif
