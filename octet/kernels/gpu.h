// The GPU's kernel rows, faster ones first. A build without CUDA adds none.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

// sm_90a: what needs wgmma and the bulk copy engine.
void add_hopper_kernels(KernelTable& table);
// Of these one kernel for every number of tokens, so that sums have one order (KernelSelection::kDeterministic).
void add_deterministic_hopper_kernels(KernelTable& table);
// Any GPU generation of the build.
void add_cuda_kernels(KernelTable& table);

}  // namespace octet
