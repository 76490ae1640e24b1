// The one door to all kernels: tables of them per device. Rows of faster backends come first; on the CPU the reference
// row is last.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

enum class KernelSelection {
  kFastest,        // every kernel of the device, reference rows last
  kReferenceOnly,  // the specification alone, on the CPU: what tests compare with
};

const KernelTable& kernel_table(Device device, KernelSelection selection = KernelSelection::kFastest);

}  // namespace octet
