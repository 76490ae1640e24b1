// What quantising does to a linear's output, by the very kernels that an engine runs.
#pragma once

#include <optional>
#include <vector>

#include "octet/ops/ops.h"

namespace octet {

// x [R, K] f32 times weight^T: f32 [R, N]. x in `activation` where that is quantised; `input_scale`: of static ones.
// The backend is the CPU's.
std::vector<float> linear_output(const Backend& backend, ConstTensor x, ConstQuantTensor weight,
                                 const QuantFormat& activation = {}, std::optional<float> input_scale = std::nullopt);

// sum (y - y_q)^2 / sum y^2 over the rows of x [R, K] f32: y = x * weight^T, y_q the same with x in `activation` and
// `quantised` weights.
double output_error(const Backend& backend, ConstTensor x, ConstTensor weight, ConstQuantTensor quantised,
                    const QuantFormat& activation, std::optional<float> input_scale);

}  // namespace octet
