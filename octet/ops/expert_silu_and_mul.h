// SiluAndMulOp of rows in the order of experts: out[r, i] = silu(x[r, i]) * x[r, I + i], written in out's format; with
// static scales by that of r's expert, [E]. x [T * k, 2I] f32|bf16; out [T * k, I]. Rows from offsets[E] on are neither
// read nor written.
#pragma once

#include "octet/ops/route_experts.h"

namespace octet {

struct ExpertSiluAndMulOp {
  static constexpr std::string_view kName = "expert_silu_and_mul";
  QuantTensor out;
  ConstTensor x;
  ConstExpertPlan plan;

  void check() const;
};

}  // namespace octet
