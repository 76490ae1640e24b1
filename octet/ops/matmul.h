// out[t, n] = sum_k x[t, k] * weight[n, k] (+ bias[n]), with both scales applied to the F32 sum:
//   out = scale_x * scale_w * sum(q_x * q_w) + bias        (per block formats: scaled per block before summing)
// x [T, K]: f32|bf16, or f8_e4m3 per token / per tensor; weight [N, K]: f32|bf16|f16, or f8_e4m3 per tensor / per
// channel; bias [N] f32 or empty; out [T, N] f32|bf16. Rows of out may be strided. A row's bits depend on its own x
// only, never on the other rows; nor on T, as long as one kernel takes it. The CPU's kernels all give the same bits;
// the GPU's for at most 16 tokens, for at most 64 or 128 (by the weight's shape) and for more differ by rounding.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct MatmulOp {
  static constexpr std::string_view kName = "matmul";
  Tensor out;
  ConstQuantTensor x;
  ConstQuantTensor weight;
  ConstTensor bias;

  void check() const;
};

}  // namespace octet
