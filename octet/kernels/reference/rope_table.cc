#include <cmath>

#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

void run(const RopeTableOp& op, const Launch&) {
  const float* inv_freq = op.inv_freq.data<float>();
  for (int64_t t = 0; t < op.positions.dim(0); ++t) {
    const auto position = static_cast<float>(op.positions.data<int32_t>()[t]);
    float* cos = op.cos.row<float>(t);
    float* sin = op.sin.row<float>(t);
    for (int64_t i = 0; i < op.inv_freq.dim(0); ++i) {
      // The product in F32 is part of the contract: at position 8191 its rounding moves an angle by up to 2^-12.
      const double angle = static_cast<double>(position * inv_freq[i]);
      cos[i] = op.attention_factor * static_cast<float>(std::cos(angle));
      sin[i] = op.attention_factor * static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace

Kernel<RopeTableOp> reference_rope_table() {
  return {.name = "reference.rope_table", .declines = [](const RopeTableOp&, const Launch&) { return std::string(); }, .run = run};
}

}  // namespace octet
