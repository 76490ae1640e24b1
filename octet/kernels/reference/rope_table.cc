#include <cmath>

#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

// What dynamic NTK multiplies inv_freq[i] by at a position: 1 within the original length.
double ntk_factor(const RopeTableOp& op, int32_t position, int64_t i) {
  if (op.ntk_factor <= 0.0f || position < op.ntk_original_max || i == 0) return 1.0;
  const double length = static_cast<double>(position) + 1.0;
  const double growth = op.ntk_factor * length / static_cast<double>(op.ntk_original_max) - (op.ntk_factor - 1.0);
  const auto rotated = static_cast<double>(2 * op.inv_freq.dim(0));
  return std::pow(growth, -2.0 * static_cast<double>(i) / (rotated - 2.0));
}

void run(const RopeTableOp& op, const Launch&) {
  const float* inv_freq = op.inv_freq.data<float>();
  for (int64_t t = 0; t < op.positions.dim(0); ++t) {
    const int32_t position = op.positions.data<int32_t>()[t];
    float* cos = op.cos.row<float>(t);
    float* sin = op.sin.row<float>(t);
    for (int64_t i = 0; i < op.inv_freq.dim(0); ++i) {
      // The product in F32 is part of the contract: at position 8191 its rounding moves an angle by up to 2^-12.
      const auto frequency = static_cast<float>(inv_freq[i] * ntk_factor(op, position, i));
      const double angle = static_cast<double>(static_cast<float>(position) * frequency);
      cos[i] = op.attention_factor * static_cast<float>(std::cos(angle));
      sin[i] = op.attention_factor * static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace

Kernel<RopeTableOp> reference_rope_table() {
  return {.name = "reference.rope_table",
          .declines = [](const RopeTableOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet
