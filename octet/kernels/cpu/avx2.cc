// The AVX2 rows. Everything included above the pragma is compiled for plain x86-64, everything below it for AVX2.
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
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include "octet/kernels/cpu/attention.h"
#include "octet/kernels/cpu/avx2_vector.h"
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

void add_avx2_kernels(KernelTable& table) {
  add_vector_row<NeedsAvx2, CombineExpertsOp>(table, "cpu.avx2.combine_experts", &run_combine_experts<Avx2>);
  add_vector_row<NeedsAvx2, EmbeddingOp>(table, "cpu.avx2.embedding", &run_embedding<Avx2>);
  add_expert_rows<NeedsAvx2, &run_matmul<Avx2>, &run_quantize<Avx2>, &run_silu_and_mul<Avx2>>(
      table, "cpu.avx2.expert_matmul", "cpu.avx2.expert_permute", "cpu.avx2.expert_silu_and_mul");
  add_expert_matmul_i8_row<NeedsAvx2, &run_matmul_i8<Avx2>>(table, "cpu.avx2.expert_matmul_i8");
  add_head_matmul_row<NeedsAvx2, &run_matmul<Avx2>>(table, "cpu.avx2.head_matmul");
  add_vector_row<NeedsAvx2, MatmulOp>(table, "cpu.avx2.matmul", &run_matmul<Avx2>);
  add_matmul_i8_row<NeedsAvx2>(table, "cpu.avx2.matmul_i8", &run_matmul_i8<Avx2>);
  add_vector_row<NeedsAvx2, PagedAttentionOp>(table, "cpu.avx2.paged_attention", &run_paged_attention<Avx2>);
  add_vector_row<NeedsAvx2, QuantizeOp>(table, "cpu.avx2.quantize", &run_quantize<Avx2>);
  add_vector_row<NeedsAvx2, RmsNormOp>(table, "cpu.avx2.rms_norm", &run_rms_norm<Avx2>);
  add_vector_row<NeedsAvx2, RopeKvOp>(table, "cpu.avx2.rope_kv", &run_rope_kv<Avx2>);
  add_vector_row<NeedsAvx2, SiluAndMulOp>(table, "cpu.avx2.silu_and_mul", &run_silu_and_mul<Avx2>);
}

}  // namespace octet

#else

namespace octet {

void add_avx2_kernels(KernelTable&) {}

}  // namespace octet

#endif
