#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

float scale_at(const ConstQuantTensor& matrix, int64_t row, int64_t col) {
  const float* scale = matrix.scale.data<float>();
  const QuantFormat& format = matrix.format;
  switch (format.granularity) {
    case Granularity::kNone:
      return 1.0f;
    case Granularity::kTensor:
      return scale[0];
    case Granularity::kChannel:
    case Granularity::kToken:
      return scale[row];
    case Granularity::kGroup:
      return scale[row * matrix.scale.dim(1) + col / format.group_cols];
    case Granularity::kBlock:
      return scale[row / format.group_rows * matrix.scale.dim(1) + col / format.group_cols];
  }
  return 1.0f;
}

int32_t zero_point_of_row(const ConstQuantTensor& matrix, int64_t row) {
  if (!matrix.format.zero_point) return 0;
  return matrix.zero_point.data<int32_t>()[matrix.format.granularity == Granularity::kTensor ? 0 : row];
}

// The real values of a row: (q - zero_point) * scale, exact in F64 (24 + 24 bits). With scales in the sum instead of
// after it every granularity is one case; the sum differs from the contract's by F64 rounding only.
std::vector<double> real_row(const ConstQuantTensor& matrix, int64_t row) {
  const std::vector<float> q = read_row(matrix.data, row);
  std::vector<double> real(q.begin(), q.end());
  if (!matrix.format.quantized()) return real;
  const double zero_point = zero_point_of_row(matrix, row);
  for (size_t i = 0; i < real.size(); ++i) {
    real[i] = (real[i] - zero_point) * scale_at(matrix, row, static_cast<int64_t>(i));
  }
  return real;
}

// Four sums, so that the additions need not wait for each other.
double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sums[4] = {};
  for (size_t i = 0; i < a.size(); ++i) sums[i % 4] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void run(const MatmulOp& op, const Launch& launch) {
  std::vector<std::vector<double>> x;
  for (int64_t t = 0; t < op.x.data.dim(0); ++t) x.push_back(real_row(op.x, t));
  for_each(launch, op.weight.data.dim(0), [&](int64_t n) {
    const std::vector<double> w = real_row(op.weight, n);
    const double bias = op.bias ? static_cast<double>(op.bias.data<float>()[n]) : 0.0;
    for (size_t t = 0; t < x.size(); ++t) {
      const auto value = static_cast<float>(dot(x[t], w) + bias);
      write_elements(op.out, static_cast<int64_t>(t) * op.out.row_stride + n, std::span(&value, 1));
    }
  });
}

std::string declines(const MatmulOp& op, const Launch&) {
  for (const ConstQuantTensor* operand : {&op.x, &op.weight}) {
    const DType dtype = operand->data.dtype;
    if (dtype == DType::kU8 || dtype == DType::kI32 || dtype == DType::kI64 || dtype == DType::kBool) {
      return "takes real numbers and i8, not " + operand->format.to_string();
    }
  }
  return "";
}

}  // namespace

Kernel<MatmulOp> reference_matmul() { return {.name = "reference.matmul", .declines = declines, .run = run}; }

}  // namespace octet
