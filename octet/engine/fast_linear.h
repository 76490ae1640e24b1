// Whether a linear in these formats can be run as it is: there is a fast matmul, and layers can make its input.
#pragma once

#include "octet/kernels/backends.h"
#include "octet/tensor/quant_format.h"

namespace octet {

inline bool linear_runs_fast(const Backend& backend, const QuantFormat& weight, const QuantFormat& activation,
                             int64_t n, int64_t k) {
  const bool made = !activation.quantized() || activation == kF8DynamicToken || activation == kF8StaticTensor;
  return made && has_fast_matmul(backend, weight, activation, n, k);
}

}  // namespace octet
