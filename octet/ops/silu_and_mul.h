// out[t, i] = silu(x[t, i]) * x[t, I + i], silu(a) = a / (1 + exp(-a)), written in out's format (see quantize.h).
// x [T, 2I] f32|bf16 (gate, then up); out [T, I].
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct SiluAndMulOp {
  static constexpr std::string_view kName = "silu_and_mul";
  QuantTensor out;
  ConstTensor x;

  void check() const;
};

}  // namespace octet
