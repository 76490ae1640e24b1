// The reference kernels: the specification of every op, as clear loops with sums in F64 and one rounding per result.
// One thread, no vector code, every format that the op's check() allows unless a kernel says it declines. Tests compare
// all other kernels with these; they also run what no fast kernel takes.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

// Appends one row per op that is no fusion.
void add_reference_kernels(KernelTable& table);
// And one per fusion: only for who compares with it. Elsewhere a fusion's parts run, on the fastest rows.
void add_reference_fusions(KernelTable& table);

}  // namespace octet
