// The angles of one step, shared by all layers: cos[t, i] = attention_factor * cos(positions[t] * inv_freq[i]), sin
// alike. cos, sin [T, R/2] f32; positions [T] i32; inv_freq [R/2] f32 (R: rotated part of head_dim). The product and
// the functions are computed in F32 as Hugging Face does. Dynamic NTK (ntk_factor > 0): a position p >=
// ntk_original_max uses, instead of inv_freq[i],
//   inv_freq[i] * (ntk_factor * (p + 1) / ntk_original_max - (ntk_factor - 1)) ^ (-2i / (R - 2)),
// the frequencies of a sequence of p + 1 tokens: what Hugging Face computes when the sequence grows token by token.
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
  float ntk_factor = 0.0f;
  int64_t ntk_original_max = 0;

  void check() const;
};

}  // namespace octet
