#include "octet/kernels/reference/rows.h"

#include <algorithm>
#include <cmath>

#include "octet/ops/quantize.h"
#include "octet/tensor/dispatch.h"

namespace octet {

void read_elements(const ConstTensor& tensor, int64_t offset, int64_t count, float* out) {
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI8>(
      tensor.dtype, [&]<DType D>() {
        const auto* from = tensor.data<CType<D>>() + offset;
        for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(to_f32(from[i]));
      });
}

void write_elements(const Tensor& tensor, int64_t offset, std::span<const float> values) {
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2>(tensor.dtype, [&]<DType D>() {
    auto* to = tensor.data<CType<D>>() + offset;
    for (const float value : values) *to++ = from_f32<CType<D>>(value);
  });
}

std::vector<float> read_row(const ConstTensor& matrix, int64_t t) {
  std::vector<float> row(static_cast<size_t>(matrix.dim(1)));
  read_elements(matrix, t * matrix.row_stride, matrix.dim(1), row.data());
  return row;
}

void write_activation_row(const QuantTensor& out, int64_t t, std::span<const float> values) {
  if (!out.format.quantized()) return write_row(out.data, t, values);
  std::vector<float> scaled(values.begin(), values.end());
  if (out.format.granularity == Granularity::kTensor) {
    const float inverse = 1.0f / out.scale.data<float>()[0];
    for (float& value : scaled) value *= inverse;
  } else {
    float amax = 0.0f;
    for (const float value : values) amax = std::fmax(amax, std::fabs(value));  // fmax passes over NaN
    const float scale = std::max(amax / kMaxF8E4M3, kMinTokenScale);
    out.scale.data<float>()[t] = scale;
    for (float& value : scaled) value /= scale;
  }
  write_row(out.data, t, scaled);
}

std::string declines_activation(const QuantFormat& format) {
  if (!format.quantized()) {
    if (format.dtype == DType::kF32 || format.dtype == DType::kBF16) return "";
  } else if (format.dtype == DType::kF8E4M3) {
    if (format.granularity == Granularity::kToken && format.dynamic) return "";
    if (format.granularity == Granularity::kTensor && !format.dynamic) return "";
  }
  return "writes f32, bf16, f8_e4m3 per token (dynamic) and f8_e4m3 per tensor (static), not " + format.to_string();
}

}  // namespace octet
