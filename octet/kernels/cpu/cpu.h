// The CPU backend's kernels.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

// Appends the rows of the CPU, fastest first.
void add_cpu_kernels(KernelTable& table);

}  // namespace octet
