// The AVX-512 rows. Everything included above the pragma is compiled for plain x86-64, everything below it for AVX-512.
#include "octet/kernels/cpu/cpu.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "octet/kernels/cpu/declines.h"
#include "octet/kernels/cpu/experts.h"
#include "octet/kernels/cpu/latent.h"
#include "octet/kernels/cpu/matmul_parts.h"
#include "octet/kernels/cpu/split.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12 warns about its own _mm512_undefined_epi32
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#include "octet/kernels/cpu/attention.h"
#include "octet/kernels/cpu/avx512_vector.h"
#include "octet/kernels/cpu/elementwise.h"
#include "octet/kernels/cpu/matmul.h"
#include "octet/kernels/cpu/matmul_i8.h"
#include "octet/kernels/cpu/rope.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace octet {

void add_avx512_kernels(KernelTable& table) {
  add_vector_row<NeedsAvx512, CombineExpertsOp>(table, "cpu.avx512.combine_experts", &run_combine_experts<Avx512>);
  add_vector_row<NeedsAvx512, EmbeddingOp>(table, "cpu.avx512.embedding", &run_embedding<Avx512>);
  add_expert_rows<NeedsAvx512, &run_matmul<Avx512>, &run_quantize<Avx512>, &run_silu_and_mul<Avx512>>(
      table, "cpu.avx512.expert_matmul", "cpu.avx512.expert_permute", "cpu.avx512.expert_silu_and_mul");
  add_expert_matmul_i8_row<NeedsAvx512, &run_matmul_i8<Avx512>>(table, "cpu.avx512.expert_matmul_i8");
  add_head_matmul_row<NeedsAvx512, &run_matmul<Avx512>>(table, "cpu.avx512.head_matmul");
  add_vector_row<NeedsAvx512, MatmulOp>(table, "cpu.avx512.matmul", &run_matmul<Avx512>);
  add_matmul_i8_row<NeedsAvx512>(table, "cpu.avx512.matmul_i8", &run_matmul_i8<Avx512>);
  add_vector_row<NeedsAvx512, PagedAttentionOp>(table, "cpu.avx512.paged_attention", &run_paged_attention<Avx512>);
  add_vector_row<NeedsAvx512, QuantizeOp>(table, "cpu.avx512.quantize", &run_quantize<Avx512>);
  add_vector_row<NeedsAvx512, RmsNormOp>(table, "cpu.avx512.rms_norm", &run_rms_norm<Avx512>);
  add_vector_row<NeedsAvx512, RopeKvOp>(table, "cpu.avx512.rope_kv", &run_rope_kv<Avx512>);
  add_vector_row<NeedsAvx512, SiluAndMulOp>(table, "cpu.avx512.silu_and_mul", &run_silu_and_mul<Avx512>);
}

}  // namespace octet

#else

namespace octet {

void add_avx512_kernels(KernelTable&) {}

}  // namespace octet

#endif
