// out[r] = x[rows[r]]. out [R, H], x [T, H] of one dtype f32|bf16; rows [R] i32.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct GatherRowsOp {
  static constexpr std::string_view kName = "gather_rows";
  Tensor out;
  ConstTensor x;
  ConstTensor rows;

  void check() const;
};

}  // namespace octet
