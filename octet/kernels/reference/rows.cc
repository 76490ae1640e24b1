#include "octet/kernels/reference/rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

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

namespace {

float largest_magnitude(std::span<const float> values) {
  float amax = 0.0f;
  for (const float value : values) amax = std::fmax(amax, std::fabs(value));  // fmax passes over NaN
  return amax;
}

// Columns that share a scale, one after the other: groups, or the whole row.
void write_f8_row(const QuantTensor& out, int64_t t, std::span<const float> values) {
  const bool grouped = out.format.granularity == Granularity::kGroup;
  const size_t width = grouped ? static_cast<size_t>(out.format.group_cols) : values.size();
  const int64_t num_scales = grouped ? out.scale.dim(1) : 1;
  float* scale = out.scale.data<float>() + t * num_scales;
  std::vector<float> scaled(values.begin(), values.end());
  for (size_t i = 0; i < static_cast<size_t>(num_scales); ++i) {
    const auto part = std::span(scaled).subspan(i * width, std::min(width, values.size() - i * width));
    if (out.format.dynamic) scale[i] = dynamic_f8_scale(out.format, largest_magnitude(part));
    for (float& value : part) value /= scale[i];
  }
  write_row(out.data, t, scaled);
}

// q = sat(round(x / scale) + zero_point); a NaN becomes the code of zero.
void write_i8_codes(const QuantTensor& out, int64_t t, std::span<const float> values, const I8Scale& by) {
  auto* code = out.data.row<int8_t>(t);
  for (const float value : values) {
    const float rounded = std::isnan(value) ? 0.0f : std::nearbyint(value / by.scale);
    *code++ = from_f32<int8_t>(rounded + static_cast<float>(by.zero_point));
  }
}

I8Scale find_i8_scale(const QuantFormat& format, std::span<const float> values) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  bool has_nan = false;
  for (const float value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
    has_nan |= std::isnan(value);
  }
  return dynamic_i8_scale(format, has_nan ? std::nanf("") : low, high);
}

void write_i8_row(const QuantTensor& out, int64_t t, std::span<const float> values) {
  const int64_t at = out.format.granularity == Granularity::kTensor ? 0 : t;
  float& scale = out.scale.data<float>()[at];
  I8Scale by{.scale = scale};
  if (out.format.dynamic) {
    by = find_i8_scale(out.format, values);
    scale = by.scale;
    if (out.format.zero_point) out.zero_point.data<int32_t>()[at] = by.zero_point;
  } else if (out.format.zero_point) {
    by.zero_point = out.zero_point.data<int32_t>()[at];
  }
  if (std::isfinite(by.scale)) return write_i8_codes(out, t, values, by);
  std::fill_n(out.data.row<int8_t>(t), values.size(), int8_t{0});
}

}  // namespace

void write_activation_row(const QuantTensor& out, int64_t t, std::span<const float> values) {
  if (!out.format.quantized()) return write_row(out.data, t, values);
  if (out.format.dtype == DType::kI8) return write_i8_row(out, t, values);
  if (out.format.granularity != Granularity::kTensor) return write_f8_row(out, t, values);
  std::vector<float> scaled(values.begin(), values.end());
  const float inverse = 1.0f / out.scale.data<float>()[0];
  for (float& value : scaled) value *= inverse;
  write_row(out.data, t, scaled);
}

std::string declines_activation(const QuantFormat& format) {
  if (format == plain_format(DType::kF32) || format == plain_format(DType::kBF16)) return "";
  if (is_quantized_activation(format)) return "";
  return "writes f32, bf16 and the 8-bit formats of ops/quantize.h, not " + format.to_string();
}

}  // namespace octet
