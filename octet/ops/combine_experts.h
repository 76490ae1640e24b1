// What the experts of a token computed, back to one row:
//   out[t] = shared part + sum over slots s, in their order, of weights[t, s] * y[rows[t, s]]
// where the shared part is shared[t], times sigmoid(shared_gate[t]) if that is given, or 0. Slots of other ranks (row
// -1) are left out: out is then this rank's share of a sum. y [T * k, H], shared [T, H] or empty: f32|bf16;
// shared_gate [T, 1] f32 or empty; weights [T, k] f32; out [T, H] f32|bf16, not shared's memory.
#pragma once

#include "octet/ops/route_experts.h"

namespace octet {

struct CombineExpertsOp {
  static constexpr std::string_view kName = "combine_experts";
  Tensor out;
  ConstTensor y;
  ConstTensor weights;
  ConstTensor rows;
  ConstTensor shared;
  ConstTensor shared_gate;

  void check() const;
};

}  // namespace octet
