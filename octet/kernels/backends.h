// The one door to all kernels: tables of them per device. Rows of faster backends come first; on the CPU the reference
// row is last.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

enum class KernelSelection {
  kFastest,        // every kernel of the device, reference rows last
  kReferenceOnly,  // the specification alone, on the CPU: what tests compare with
};

// Whether a row other than the reference runs a linear of weight [n, k]; a plain activation is what the backend makes.
bool has_fast_matmul(const Backend& backend, const QuantFormat& weight, const QuantFormat& activation, int64_t n,
                     int64_t k);

const KernelTable& kernel_table(Device device, KernelSelection selection = KernelSelection::kFastest);

}  // namespace octet
