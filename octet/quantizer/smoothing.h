// Smoothing (SmoothQuant, Xiao et al. 2022): a channel of a linear's input that is much larger than others costs them
// the steps of a scale that they share. Dividing it by a factor, and multiplying the weight's column by the same,
// changes no output; the division is folded into what makes the input:
//   input_layernorm -> q, k, v      post_attention_layernorm -> gate, up      the norm's weight
//   v -> o (one factor for the heads that read the same values)               v's rows and bias
//   up -> down (the input is act(gate) * up, linear in up)                    up's rows and bias
// Factors are amax(x_j)^strength / amax(W_j)^(1 - strength); the strength of each is searched for by what rounding
// loses of the outputs (unit_trial.h), no smoothing at all among the choices. The factors of a norm are then changed to
// where its divided weight is a number of its own dtype, so that folding rounds nothing.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/checkpoint/config.h"
#include "octet/quantizer/calibration.h"
#include "octet/quantizer/fold.h"
#include "octet/quantizer/plan.h"

namespace octet {

// Of a run: none; searched for; or the same for every linear, 0..1.
struct Smoothing {
  enum class Kind : uint8_t { kOff, kAuto, kFixed } kind = Kind::kOff;
  double strength = 0.0;
};
// "off", "auto" or a number from 0 to 1. Throws Error{kUsage}.
Smoothing parse_smoothing(const std::string& text);

// A place where a unit's input can be divided.
struct FoldPlace {
  const PlannedUnit* consumer = nullptr;
  std::string norm;      // what makes the input: the weight of a norm,
  std::string producer;  // or a linear of another unit
  int64_t head_dim = 0;  // of v -> o: heads of so many channels,
  int64_t group = 1;     // so many of which read the same values
};
// Those of a layer; none for architectures whose layers octet does not know to be like Llama's.
std::vector<FoldPlace> fold_places(const QuantizePlan& plan, const ModelConfig& config, const SafetensorsFolder& source,
                                   int64_t layer);

class UnitTrial;
struct FoundStrength {
  std::optional<double> strength;  // nothing: better as it is
  std::vector<float> factors;      // of the strength
  double error = 0.0;              // that it leaves; see UnitTrial::error
};
// The strength for a unit in `scheme` whose input's channels have the largest magnitudes x_amax.
FoundStrength find_strength(const Smoothing& smoothing, const FoldPlace& place, const NamedScheme& scheme,
                            const UnitTrial& trial, std::span<const float> x_amax, const SafetensorsFolder& source,
                            ThreadPool& threads);

struct SmoothedLayer {
  Folds folds;
  std::map<std::string, double> strengths;  // by unit; those that are smoothed
};
// `seen`: what calibration saw of the layer; the inputs of what is smoothed are divided in it. The backend is the
// CPU's.
SmoothedLayer smooth_layer(const Smoothing& smoothing, const std::vector<FoldPlace>& places,
                           const SafetensorsFolder& source, const Backend& backend, ThreadPool& threads,
                           ObservedLayer& seen);

// The factors of one place; x_amax, w_amax [K]. Their geometric mean is 1; a channel of zeros keeps 1.
std::vector<float> smoothing_factors(std::span<const float> x_amax, std::span<const float> w_amax, double strength,
                                     const FoldPlace& place);

}  // namespace octet
