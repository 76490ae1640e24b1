// Mixed precision: each unit in INT8 or FP8, whichever loses less of its outputs, and the worst of them, within a
// budget of bytes, as they are. INT8's steps are equal, FP8's grow with the number: which is better depends on how much
// larger than the rest a token's largest channels are. Linears that are fused, or of one unit, share a format.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "octet/quantizer/calibration_text.h"
#include "octet/quantizer/plan.h"
#include "octet/quantizer/smoothing.h"

namespace octet {

// What a unit would lose in each format; see UnitTrial::error.
struct UnitLoss {
  std::string unit;
  int64_t num_weights = 0;
  double int8 = 0.0, fp8 = 0.0;
};

// Runs the source over some of the text, layer by layer. `on_step`: after each of survey_steps().
std::vector<UnitLoss> survey_units(const ModelConfig& config, const SafetensorsFolder& source, const QuantizePlan& plan,
                                   const CalibrationText& text, ObservedExperts experts, const Smoothing& smoothing,
                                   ThreadPool& threads, const std::function<void()>& on_step);
int64_t survey_steps(const ModelConfig& config, const CalibrationText& text);

// The scheme of each unit, for PlanRequest::others; without weights for those that stay as they are: those that lose
// most a byte, as many as have at most `plain_share` of all weights.
std::map<std::string, NamedScheme> choose_precision(std::span<const UnitLoss> losses, double plain_share);

}  // namespace octet
