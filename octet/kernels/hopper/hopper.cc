// Hopper's rows, one add_* per file of this folder.
#include "octet/kernels/gpu.h"

namespace octet {

void add_hopper_kernels(KernelTable&) {}

}  // namespace octet
