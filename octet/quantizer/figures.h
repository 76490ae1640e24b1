// Figures: what quantising did to a linear, to a layer and to the whole model. The first are part of the journal too,
// so that a resumed run reports what the earlier one measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/json.h"

namespace octet {

// What calibration saw of a linear's input, and what quantising does to its output. Errors are sums of squares of
// differences over sums of squares.
struct CalibratedFigures {
  int64_t num_tokens = 0;  // of the calibration text that it saw: of an expert those that were sent to it
  float input_amax = 0.0f;
  double input_rms = 0.0;
  std::optional<float> input_scale;   // of static activations
  int64_t num_measured = 0;           // rows of held-out inputs that the following are measured on; 0: they are not
  double saturated = 0.0;             // share of the held-out inputs' elements beyond what input_scale can say
  double output_error = 0.0;          // on held-out inputs, which are quantised too
  double rounded_output_error = 0.0;  // the same with weights rounded to the nearest, scales from amax
};

struct LinearFigures {
  std::string module;
  int64_t n = 0, k = 0;
  double weight_error = 0.0;
  float smallest_scale = 0.0f, largest_scale = 0.0f;
  std::string scheme = {};               // "fp8_channel"
  std::optional<double> smoothing = {};  // the strength by which its input was divided; see smoothing.h
  bool folded = false;                   // its numbers are not the source's: smoothing moved some of its magnitude
  std::optional<CalibratedFigures> calibrated;

  Json to_json() const;
  // Throws Error{kInvalid} for anything else than to_json() gives.
  static LinearFigures from_json(const Json& json);
};

// The quantised model's residual stream beside the source's after a layer, on held-out text.
struct LayerFigures {
  int64_t layer = 0;
  double drift = 0.0;
  std::vector<float> k_scales, v_scales;  // of the KV cache, where they are written: one, or one per head

  Json to_json() const;
};

// The quantised model beside the source on held-out text; KL divergence in nats.
struct ModelFigures {
  double kl_mean = 0.0, kl_low = 0.0, kl_high = 0.0;  // with its 95 % interval, clustered by sample
  double kl_median = 0.0, kl_p99 = 0.0, kl_max = 0.0;
  double top1_agreement = 0.0;
  double perplexity = 0.0, source_perplexity = 0.0;
  int64_t num_tokens = 0, num_samples = 0;

  Json to_json() const;
};

}  // namespace octet
