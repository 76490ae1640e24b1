// RMSNorm with the residual addition before it and the quantisation after it (Zhang & Sennrich 2019; HF LlamaRMSNorm).
//   residual[t] += x[t]                       (only if x is given)
//   y[t] = residual[t] * rsqrt(mean(residual[t]^2) + epsilon) * weight
//   out[t] = y[t] in out's format: f32|bf16, or 8 bits (see quantize.h)
// x [T, H] and residual [T, H] f32|bf16, weight [H] f32, out [T, H]. Sums in at least F32.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct RmsNormOp {
  static constexpr std::string_view kName = "rms_norm";
  QuantTensor out;
  ConstTensor x;  // empty: nothing is added
  Tensor residual;
  ConstTensor weight;
  float epsilon = 1e-6f;

  void check() const;
};

}  // namespace octet
