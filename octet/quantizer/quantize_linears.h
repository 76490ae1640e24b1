// Quantises one unit of the plan: linears that share their input, and writes them.
#pragma once

#include <vector>

#include "octet/checkpoint/safetensors_writer.h"
#include "octet/quantizer/figures.h"
#include "octet/quantizer/plan.h"

namespace octet {

// Per-tensor scales are those of the unit's largest magnitude, so that engines that fuse its linears need not round
// again. Throws Error{kModel} for NaN and infinity.
std::vector<LinearFigures> quantize_linears(const QuantizePlan& plan, const PlannedUnit& unit,
                                            const SafetensorsFolder& source, SafetensorsWriter& writer,
                                            ThreadPool& threads);

// sum (weight - quantised)^2 / sum weight^2, the same on any number of threads.
double weight_error(ConstTensor weight, ConstQuantTensor quantised, ThreadPool& threads);

}  // namespace octet
