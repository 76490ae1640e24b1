#include "octet/ops/quantize.h"

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

// A scale per token that the caller gives.
bool scale_given(const QuantFormat& format) {
  return format.dtype == DType::kF8E4M3 && format.granularity == Granularity::kToken && !format.dynamic;
}

std::string declines(const QuantizeOp& op, const Launch&) {
  return scale_given(op.out.format) ? std::string() : declines_activation(op.out.format);
}

void run(const QuantizeOp& op, const Launch&) {
  for (int64_t t = 0; t < op.x.dim(0); ++t) {
    std::vector<float> row = read_row(op.x, t);
    if (!scale_given(op.out.format)) {
      write_activation_row(op.out, t, row);
      continue;
    }
    for (float& value : row) value /= op.out.scale.data<float>()[t];
    write_row(op.out.data, t, row);
  }
}

}  // namespace

Kernel<QuantizeOp> reference_quantize() { return {.name = "reference.quantize", .declines = declines, .run = run}; }

}  // namespace octet
