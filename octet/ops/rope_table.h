// The angles of one step, shared by all layers: cos[t, i] = attention_factor * cos(positions[t] * inv_freq[i]), sin alike.
// cos, sin [T, R/2] f32; positions [T] i32; inv_freq [R/2] f32 (R: rotated part of head_dim). The product and the functions
// are computed in F32 as Hugging Face does.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct RopeTableOp {
  static constexpr std::string_view kName = "rope_table";
  Tensor cos;
  Tensor sin;
  ConstTensor positions;
  ConstTensor inv_freq;
  float attention_factor = 1.0f;

  void check() const;
};

}  // namespace octet
