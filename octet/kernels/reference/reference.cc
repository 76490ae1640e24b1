#include "octet/kernels/reference/reference.h"

namespace octet {

void add_reference_kernels(KernelTable&) {}

}  // namespace octet
