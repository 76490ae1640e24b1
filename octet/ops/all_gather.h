// The columns of all ranks of a tensor-parallel group (octet/device/comm.h) side by side. Every rank runs the op at the
// same place of the same step.
//   out [T, world * C] = part [T, C] of rank 0, of rank 1, ...
// Both f32 and contiguous.
#pragma once

#include "octet/device/comm.h"
#include "octet/ops/shape_check.h"

namespace octet {

struct AllGatherOp {
  static constexpr std::string_view kName = "all_gather";
  Tensor out;
  ConstTensor part;
  Comm* comm = nullptr;

  void check() const;
};

}  // namespace octet
