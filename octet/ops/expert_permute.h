// Tokens in the order of experts, as their matmul wants them; a token has as many rows as it has experts.
//   out[r] = x[token of r] in out's format, by the rules of quantize.h; with static scales by that (and the zero point)
//   of r's expert
// x [T, K] f32|bf16; out [T * k, K] plain, or f8_e4m3 or i8 per token, per group or per tensor, then with its scale [E]
// given. Rows from offsets[E] on are not written.
#pragma once

#include "octet/ops/route_experts.h"

namespace octet {

struct ExpertPermuteOp {
  static constexpr std::string_view kName = "expert_permute";
  QuantTensor out;
  ConstTensor x;
  ConstExpertPlan plan;

  void check() const;
};

}  // namespace octet
