// Up to three moves of i32, one after the other: to[to_index[i]] = from[from_index[i]] for all i of the indices. An
// empty index is 0, 1, ...; with both empty all of `from` is copied. Places in to_index are distinct. Of one GPU, any
// tensor may lie in pinned host memory: for what is small a kernel takes less time than its copy engines.
// to [N] i32, from [M] i32, indices [C] i32 (of a move with both, the same C).
#pragma once

#include <array>

#include "octet/ops/shape_check.h"

namespace octet {

struct IntMove {
  Tensor to;  // empty: nothing to move
  ConstTensor from;
  ConstTensor to_index, from_index;

  int64_t count() const { return to_index ? to_index.dim(0) : from_index ? from_index.dim(0) : from.dim(0); }
};

struct MoveIntsOp {
  static constexpr std::string_view kName = "move_ints";
  std::array<IntMove, 3> moves;

  void check() const;
};

}  // namespace octet
