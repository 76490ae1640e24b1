// check() of the ops over ranks.
#include "octet/ops/ops.h"

namespace octet {

void AllReduceOp::check() const {
  ShapeCheck check(kName);
  check.tensor("x", x, {"T", "H"});
  check.dtype("x", x, {DType::kF32, DType::kBF16});
  check.that(x.contiguous(), "x is contiguous");
  check.that(comm != nullptr, "comm is there");
}

void AllGatherOp::check() const {
  ShapeCheck check(kName);
  check.tensor("part", part, {"T", "C"});
  check.tensor("out", out, {"T", "world*C"});
  check.dtype("part", part, {DType::kF32});
  check.dtype("out", out, {DType::kF32});
  check.that(part.contiguous() && out.contiguous(), "part and out are contiguous");
  check.that(comm != nullptr && out.dim(1) == comm->world_size() * part.dim(1), "out has every rank's columns");
}

void ReduceNormOp::check() const {
  reduce.check();
  norm.check();
  ShapeCheck check(kName);
  check.that(norm.x.bytes == reduce.x.bytes && norm.x.shape == reduce.x.shape && norm.x.dtype == reduce.x.dtype,
             "norm.x is reduce.x");
}

}  // namespace octet
