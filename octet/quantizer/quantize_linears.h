// Quantises one unit of the plan: linears that share their input, and writes them.
#pragma once

#include <optional>
#include <vector>

#include "octet/checkpoint/safetensors_writer.h"
#include "octet/ops/ops.h"
#include "octet/quantizer/figures.h"
#include "octet/quantizer/fold.h"
#include "octet/quantizer/gptq.h"
#include "octet/quantizer/input_statistics.h"
#include "octet/quantizer/plan.h"

namespace octet {

// What calibration knows of a unit's common input.
struct UnitInput {
  const InputStatistics* statistics = nullptr;
  ConstTensor held_out;              // [R, K] f32: rows that errors of outputs are measured on
  double saturated = 0.0;            // see CalibratedFigures
  std::optional<float> input_scale;  // of static activations
  const Backend* backend = nullptr;  // the CPU's
  const Hessian* hessian = nullptr;  // of recipes that need it
  std::optional<double> smoothing;   // the strength by which it was divided
};

// One unit of a plan, and what is known of it.
struct UnitTask {
  const QuantizePlan& plan;
  const PlannedUnit& unit;
  const SafetensorsFolder& source;
  const UnitInput* input = nullptr;  // nullptr without calibration
  const Folds* folds = nullptr;      // nullptr: none
};

// One scale per tensor is one for the whole unit, so that engines that fuse its linears need not round again (baselines
// have one for each linear). Throws Error{kModel} for NaN and infinity.
std::vector<LinearFigures> quantize_linears(const UnitTask& task, SafetensorsWriter& writer, ThreadPool& threads);

// sum (weight - quantised)^2 / sum weight^2, the same on any number of threads.
double weight_error(ConstTensor weight, ConstQuantTensor quantised, ThreadPool& threads);

}  // namespace octet
