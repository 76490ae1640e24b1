#include <cmath>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

std::string declines(const SiluAndMulOp& op, const Launch&) { return declines_activation(op.out.format); }

double silu(double a) { return a / (1.0 + std::exp(-a)); }

void run(const SiluAndMulOp& op, const Launch&) {
  const auto intermediate = static_cast<size_t>(op.out.data.dim(1));
  for (int64_t t = 0; t < op.x.dim(0); ++t) {
    std::vector<float> x = read_row(op.x, t);
    for (size_t i = 0; i < intermediate; ++i) x[i] = static_cast<float>(silu(x[i]) * x[intermediate + i]);
    write_activation_row(op.out, t, std::span(x).first(intermediate));
  }
}

}  // namespace

Kernel<SiluAndMulOp> reference_silu_and_mul() {
  return {.name = "reference.silu_and_mul", .declines = declines, .run = run};
}

}  // namespace octet
