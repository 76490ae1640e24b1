// A small matmul for each head: what takes queries into the space of a compressed cache, and what comes out of it.
//   out[t, h * out_step + out_first + n] = sum_k x[t, h * x_step + x_first + k] * weight[h, n, k]
// x [T, H * x_step], out [T, H * out_step] f32|bf16, rows may be strided; weight [H, N, K] f32|bf16|f16. Other columns
// of out stay as they are. A row's bits depend on its own x only.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct HeadMatmulOp {
  static constexpr std::string_view kName = "head_matmul";
  Tensor out;
  int64_t out_step = 0;
  int64_t out_first = 0;
  ConstTensor x;
  int64_t x_step = 0;
  int64_t x_first = 0;
  ConstTensor weight;

  int64_t num_heads() const { return weight.dim(0); }
  void check() const;
};

}  // namespace octet
