#include "octet/kernels/cpu/cpu.h"

namespace octet {

void add_cpu_kernels(KernelTable&) {}

}  // namespace octet
