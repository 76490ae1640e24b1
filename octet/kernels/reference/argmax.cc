#include <cmath>
#include <limits>

#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

int32_t argmax_of(const float* row, int64_t count) {
  float largest = -std::numeric_limits<float>::infinity();
  int32_t index = kBrokenRow;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isnan(row[i]) || row[i] == std::numeric_limits<float>::infinity()) return kBrokenRow;
    if (row[i] > largest) {
      largest = row[i];
      index = static_cast<int32_t>(i);
    }
  }
  return index;
}

void run(const ArgmaxOp& op, const Launch&) {
  for (int64_t t = 0; t < op.x.dim(0); ++t)
    op.index.data<int32_t>()[t] = argmax_of(op.x.data<float>() + t * op.x.row_stride, op.x.dim(1));
}

}  // namespace

Kernel<ArgmaxOp> reference_argmax() {
  return {
      .name = "reference.argmax", .declines = [](const ArgmaxOp&, const Launch&) { return std::string(); }, .run = run};
}

}  // namespace octet
