#include <cmath>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

std::vector<double> shared_part(const CombineExpertsOp& op, int64_t t) {
  if (!op.shared) return std::vector<double>(static_cast<size_t>(op.out.dim(1)), 0.0);
  const std::vector<float> shared = read_row(op.shared, t);
  std::vector<double> part(shared.begin(), shared.end());
  if (!op.shared_gate) return part;
  const double gate = 1.0 / (1.0 + std::exp(-static_cast<double>(*op.shared_gate.row<float>(t))));
  for (double& value : part) value *= gate;
  return part;
}

void run(const CombineExpertsOp& op, const Launch&) {
  for (int64_t t = 0; t < op.out.dim(0); ++t) {
    std::vector<double> sum = shared_part(op, t);
    for (int64_t s = 0; s < op.rows.dim(1); ++s) {
      const int32_t row = op.rows.row<int32_t>(t)[s];
      if (row < 0) continue;
      OCTET_CHECK(row < op.y.dim(0));
      const std::vector<float> y = read_row(op.y, row);
      const double weight = op.weights.row<float>(t)[s];
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * y[i];
    }
    write_row(op.out, t, std::vector<float>(sum.begin(), sum.end()));
  }
}

}  // namespace

Kernel<CombineExpertsOp> reference_combine_experts() {
  return {.name = "reference.combine_experts",
          .declines = [](const CombineExpertsOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet
