// Tokens to 8 bits with the static scales of the experts they go to: each expert has its own, so that a token has as
// many rows as it has experts.
//   out[r] = x[token of r] in out's format, with the scale (and zero point) of r's expert
// by the rules of quantize.h. x [T, K] f32|bf16; out [T * k, K] f8_e4m3 or i8 per tensor, its scale [E] given. Rows
// from offsets[E] on are not written. (With dynamic scales a token is quantised once, by QuantizeOp.)
#pragma once

#include "octet/ops/route_experts.h"

namespace octet {

struct ExpertQuantizeOp {
  static constexpr std::string_view kName = "expert_quantize";
  QuantTensor out;
  ConstTensor x;
  ConstExpertPlan plan;

  void check() const;
};

}  // namespace octet
