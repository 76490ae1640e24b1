// Activations to 8 bits. x [T, K] f32|bf16 -> out [T, K].
//   dynamic per token:  scale[t] = max(max_k |x[t,k]| / 448, 1 / (448 * 512)),  q = sat_e4m3(x / scale)     (vLLM's
//   rule and floor) static per tensor:  q = sat_e4m3(x * (1 / scale)), scale given given per token (granularity kToken,
//   not dynamic; this op only): q = sat_e4m3(x / scale[t]), scale given; tensor parallel
//                       layers use it after taking the maximum of the ranks' dynamic scales
// A NaN becomes NaN and does not count in the maximum; a row with an infinity becomes zeros and NaN.
// The same arithmetic wherever an op quantises its output (rms_norm, silu_and_mul, paged_attention).
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

inline constexpr float kMinTokenScale = 1.0f / (448.0f * 512.0f);

struct QuantizeOp {
  static constexpr std::string_view kName = "quantize";
  QuantTensor out;
  ConstTensor x;

  void check() const;
};

}  // namespace octet
