// What quantising does to a linear's output, by the very kernels that an engine runs.
#pragma once

#include <optional>

#include "octet/ops/ops.h"

namespace octet {

// sum (y - y_q)^2 / sum y^2 over the rows of x [R, K] f32: y = x * weight^T, y_q the same with x in `activation` and
// `quantised` weights. `input_scale`: of static activations. The backend is the CPU's.
double output_error(const Backend& backend, ConstTensor x, ConstTensor weight, ConstQuantTensor quantised,
                    const QuantFormat& activation, std::optional<float> input_scale);

}  // namespace octet
