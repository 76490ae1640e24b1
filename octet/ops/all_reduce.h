// Sums over the ranks of a tensor-parallel group (octet/device/comm.h). Every rank runs the op at the same place of the
// same step.
//   x = sum over ranks of x, in place
// x [T, H] f32|bf16, contiguous. Added in rank order in F32, rounded once: every rank gets the same bits.
#pragma once

#include "octet/device/comm.h"
#include "octet/ops/shape_check.h"

namespace octet {

struct AllReduceOp {
  static constexpr std::string_view kName = "all_reduce";
  Tensor x;
  Comm* comm = nullptr;

  void check() const;
};

}  // namespace octet
