#include "octet/kernels/gpu.h"

namespace octet {

void add_hopper_kernels(KernelTable&) {}
void add_deterministic_hopper_kernels(KernelTable&) {}
void add_cuda_kernels(KernelTable&) {}

}  // namespace octet
