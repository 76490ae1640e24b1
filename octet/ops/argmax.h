// index[t] = the first place of the largest value of row t, or -1 when the row is broken: it holds a NaN or plus
// infinity, or nothing but minus infinities. x [T, V] f32 (rows may be strided); index [T] i32.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

inline constexpr int32_t kBrokenRow = -1;

struct ArgmaxOp {
  static constexpr std::string_view kName = "argmax";
  Tensor index;
  ConstTensor x;

  void check() const;
};

}  // namespace octet
