#include "octet/ops/quantize.h"

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

std::string declines(const QuantizeOp& op, const Launch&) {
  return token_scale_given(op.out.format) ? std::string() : declines_activation(op.out.format);
}

void run(const QuantizeOp& op, const Launch&) {
  for (int64_t t = 0; t < op.x.dim(0); ++t) write_activation_row(op.out, t, read_row(op.x, t));
}

}  // namespace

Kernel<QuantizeOp> reference_quantize() { return {.name = "reference.quantize", .declines = declines, .run = run}; }

}  // namespace octet
