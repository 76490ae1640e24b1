// The matmuls of a layer's experts as one op: row r of expert e (see route_experts.h) is
//   out[r] = x[r] * weight[e]^T
// by the contract of MatmulOp, without a bias: the same scales, the same independence of a row of all others.
//   weight [E, N, K]: every format of matmul.h, each expert with scales of its own ([E, ...])
//   x [T * k, K] in the order of experts (expert_permute.h), every format of matmul.h; with scales per tensor, which
//   are static, each expert has its own, [E] (and its own zero point)
// out [T * k, N] f32|bf16. Rows from offsets[E] on are neither read nor written.
#pragma once

#include "octet/ops/matmul.h"
#include "octet/ops/route_experts.h"

namespace octet {

struct ExpertMatmulOp {
  static constexpr std::string_view kName = "expert_matmul";
  Tensor out;
  ConstQuantTensor x;
  ConstQuantTensor weight;
  ConstExpertPlan plan;
  // The op before this one on the stream has the same plan: a GPU may then read it while that op still runs.
  bool follows_plan = false;

  void check() const;
};

// What all experts' products have in common: every row by the first expert's weight.
inline MatmulOp first_matrix(const ExpertMatmulOp& op) {
  return {.out = op.out, .x = op.x, .weight = op.weight.matrix(0), .bias = {}};
}

// The input of one expert's matmul, of x in the order of rows: rows [begin, begin + count) with expert e's own scale.
template <class Bytes>
BasicQuantTensor<Bytes> rows_of_expert(BasicQuantTensor<Bytes> x, int64_t e, int64_t begin, int64_t count) {
  const bool by_expert = x.format.granularity == Granularity::kTensor;
  x.data = x.data.rows(begin, count);
  if (x.scale) x.scale = by_expert ? x.scale.rows(e, 1) : x.scale.rows(begin, count);
  if (x.zero_point) x.zero_point = by_expert ? x.zero_point.rows(e, 1) : x.zero_point.rows(begin, count);
  return x;
}

}  // namespace octet
