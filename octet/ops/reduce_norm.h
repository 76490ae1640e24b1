// AllReduceOp, then RmsNormOp of the sum: what stands between two layers of a model that is spread over ranks. A fusion
// (octet/ops/op.h). A kernel that takes it whole need not write reduce.x.
#pragma once

#include "octet/ops/all_reduce.h"
#include "octet/ops/rms_norm.h"

namespace octet {

struct ReduceNormOp {
  static constexpr std::string_view kName = "reduce_norm";
  AllReduceOp reduce;
  RmsNormOp norm;

  std::tuple<const AllReduceOp&, const RmsNormOp&> parts() const { return {reduce, norm}; }
  void check() const;
};

}  // namespace octet
