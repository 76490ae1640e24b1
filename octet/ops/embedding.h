// out[t] = table[token_ids[t] - first_id], converted to out's dtype; zeros where the id lies outside the table (another
// rank holds that row). out [T, H] f32|bf16; table [V, H] f32|bf16|f16; token_ids [T] i32.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct EmbeddingOp {
  static constexpr std::string_view kName = "embedding";
  Tensor out;
  ConstTensor table;
  ConstTensor token_ids;
  int64_t first_id = 0;

  void check() const;
};

}  // namespace octet
