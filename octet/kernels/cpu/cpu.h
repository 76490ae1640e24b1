// The CPU's fast kernels: every op in F32 activations for processors with AVX2 + FMA + F16C and with AVX-512, products
// of integers also with AVX-512's VNNI. Rows
// decline at run time by Launch.features; whatever they decline (other processors, BF16 activations) falls to the
// reference rows.
//
// One source for all instruction sets: each kernel is a template over a vector type (avx2_vector.h, avx512_vector.h),
// and avx2.cc, avx512.cc and avx512_vnni.cc instantiate them under a target pragma. The pragma stands after all other
// includes: a header's inline function compiled for AVX-512 might be the copy the linker keeps for everybody. A lambda
// inside a template gets the target at the place of instantiation, not of definition: lambdas in these templates hold
// no vectors, they only call functions.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

// Appends the fast rows, best first.
void add_cpu_kernels(KernelTable& table);

// The parts of it; the vector rows add nothing where the compiler does not target x86-64.
void add_avx512_vnni_kernels(KernelTable& table);
void add_avx512_kernels(KernelTable& table);
void add_avx2_kernels(KernelTable& table);
void add_any_cpu_kernels(KernelTable& table);
Kernel<LatentKvOp> cpu_latent_kv();
Kernel<RouteExpertsOp> cpu_route_experts();

}  // namespace octet
