#include <cmath>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

std::string declines(const RmsNormOp& op, const Launch&) { return declines_activation(op.out.format); }

void add_to_residual(const RmsNormOp& op, int64_t t) {
  std::vector<float> sum = read_row(op.residual, t);
  const std::vector<float> x = read_row(op.x, t);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += x[i];
  write_row(op.residual, t, sum);
}

void run(const RmsNormOp& op, const Launch&) {
  const float* weight = op.weight.data<float>();
  for (int64_t t = 0; t < op.residual.dim(0); ++t) {
    if (op.x) add_to_residual(op, t);
    std::vector<float> y = read_row(op.residual, t);  // as stored: in BF16 the sum has been rounded
    double sum_of_squares = 0.0;
    for (const float value : y) sum_of_squares += static_cast<double>(value) * value;
    const double mean = sum_of_squares / static_cast<double>(y.size());
    const double inverse = 1.0 / std::sqrt(mean + static_cast<double>(op.epsilon));
    for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(y[i] * inverse * weight[i]);
    write_activation_row(op.out, t, y);
  }
}

}  // namespace

Kernel<RmsNormOp> reference_rms_norm() { return {.name = "reference.rms_norm", .declines = declines, .run = run}; }

}  // namespace octet
