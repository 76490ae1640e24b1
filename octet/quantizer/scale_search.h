// Scales that lose least: for each scale of a weight the one that minimises
//   sum_k c_k (w_k - s * round(w_k / s))^2,   c_k: the mean square of the input's channel k,
// among steps over an octave. Of E4M3 only the place of s within its octave matters, and scales are made larger: what
// saturates counts as it is. Of INT8 smaller ones are tried: rare large weights are cut for the sake of all others.
#pragma once

#include <span>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/tensor/quant_format.h"

namespace octet {

// What QuantScheme::quantize takes as `amax`: a magnitude for every scale of a weight in `format`. `weights`: those
// that share one scale where it is per tensor (then the result has one number), else one. `importance`: c_k, [K].
std::vector<float> search_scales(std::span<const ConstTensor> weights, const QuantFormat& format,
                                 std::span<const double> importance, ThreadPool& threads);

}  // namespace octet
