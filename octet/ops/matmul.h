// out[t, n] = sum_k x[t, k] * weight[n, k] (+ bias[n]), with both scales applied to the F32 sum:
//   out = scale_x * scale_w * sum((q_x - zero_point_x) * q_w) + bias
// (groups and blocks: scaled before summing.)
//   x [T, K]       f32|bf16; f8_e4m3 per token, tensor or group; i8 per token or tensor, with or without zero points
//   weight [N, K]  f32|bf16|f16; f8_e4m3 per tensor, channel, group or block; i8 per tensor or channel
// bias [N] f32 or empty; out [T, N] f32|bf16. Columns of groups and blocks count from column 0 of x and weight; the
// last ones may be short. Rows of out may be strided. A row's bits depend on its own x only, never on the other rows;
// nor on T, as long as one kernel takes it. The CPU's kernels all give the same bits; the GPU's for at most 16 tokens,
// for at most 64 or 128 (by the weight's shape) and for more differ by rounding.
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

// The formats that its operands may have: what the contract above lists.
bool is_matmul_x(const QuantFormat& format);
bool is_matmul_weight(const QuantFormat& format);

}  // namespace octet
