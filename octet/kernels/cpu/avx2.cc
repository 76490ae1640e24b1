// The AVX2 rows. Everything included above the pragma is compiled for plain x86-64, everything below it for AVX2.
#include "octet/kernels/cpu/cpu.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

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
#include "octet/kernels/cpu/rope.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace octet {

void add_avx2_kernels(KernelTable& table) {
  table.of<EmbeddingOp>().push_back({"cpu.avx2.embedding", &embedding_declines<Avx2>, &run_embedding<Avx2>});
  table.of<MatmulOp>().push_back({"cpu.avx2.matmul", &matmul_declines<Avx2>, &run_matmul<Avx2>});
  table.of<PagedAttentionOp>().push_back(
      {"cpu.avx2.paged_attention", &paged_attention_declines<Avx2>, &run_paged_attention<Avx2>});
  table.of<QuantizeOp>().push_back({"cpu.avx2.quantize", &quantize_declines<Avx2>, &run_quantize<Avx2>});
  table.of<RmsNormOp>().push_back({"cpu.avx2.rms_norm", &rms_norm_declines<Avx2>, &run_rms_norm<Avx2>});
  table.of<RopeKvOp>().push_back({"cpu.avx2.rope_kv", &rope_kv_declines<Avx2>, &run_rope_kv<Avx2>});
  table.of<SiluAndMulOp>().push_back({"cpu.avx2.silu_and_mul", &silu_and_mul_declines<Avx2>, &run_silu_and_mul<Avx2>});
}

}  // namespace octet

#else

namespace octet {

void add_avx2_kernels(KernelTable&) {}

}  // namespace octet

#endif
