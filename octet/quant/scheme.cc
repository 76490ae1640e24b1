#include "octet/quant/scheme.h"

#include <algorithm>
#include <mutex>

#include "octet/base/error.h"
#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

void check_scale(const ConstQuantTensor& matrix) {
  if (!matrix.format.quantized()) return;
  OCTET_CHECK(matrix.scale.dtype == DType::kF32 && matrix.scale.contiguous());
  OCTET_CHECK(matrix.scale.shape == matrix.format.scale_shape(matrix.data.dim(0), matrix.data.dim(1)));
}

// The scales of one row's elements: element k has scales[k / columns_per_scale].
struct RowScales {
  const float* scales;
  int64_t columns_per_scale;
};

RowScales row_scales(const ConstQuantTensor& matrix, int64_t row) {
  const float* scale = matrix.scale.data<float>();
  const QuantFormat& format = matrix.format;
  const int64_t cols = std::max<int64_t>(1, matrix.data.dim(1));
  switch (format.granularity) {
    case Granularity::kChannel:
    case Granularity::kToken:
      return {scale + row, cols};
    case Granularity::kGroup:
      return {scale + row * matrix.scale.dim(1), format.group_cols};
    case Granularity::kBlock:
      return {scale + row / format.group_rows * matrix.scale.dim(1), format.group_cols};
    case Granularity::kNone:
    case Granularity::kTensor:
      break;
  }
  return {scale, cols};
}

}  // namespace

StoredTensor stored_weight(DType dtype, int64_t n, int64_t k) {
  return {.suffixes = {"weight"}, .role = WeightRole::kWeight, .dtypes = {dtype}, .shapes = {Shape{n, k}}};
}

StoredTensor stored_scale(std::vector<Shape> shapes) {
  return {.suffixes = {"weight_scale", "weight_scale_inv", "scale", "qscale_weight"},
          .role = WeightRole::kWeightScale,
          .dtypes = {DType::kF32, DType::kBF16, DType::kF16, DType::kU8},
          .shapes = std::move(shapes)};
}

std::vector<StoredTensor> stored_input_tensors(const QuantFormat& activation) {
  using Presence = StoredTensor::Presence;
  const bool fixed = activation.granularity == Granularity::kTensor && !activation.dynamic;
  const std::vector<Shape> scalar = {Shape{}, Shape{1}, Shape{1, 1}};
  return {{.suffixes = {"input_scale", "activation_scale", "qscale_act"},
           .role = WeightRole::kInputScale,
           .dtypes = {DType::kF32, DType::kBF16, DType::kF16},
           .shapes = scalar,
           .presence = fixed ? Presence::kRequired : Presence::kOptional},
          {.suffixes = {"input_zero_point"},
           .role = WeightRole::kInputZeroPoint,
           .dtypes = {DType::kI8, DType::kI32, DType::kI64, DType::kF8E4M3},
           .shapes = scalar,
           .presence = fixed && activation.zero_point ? Presence::kRequired : Presence::kOptional}};
}

void QuantScheme::quantize(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                           std::span<const float> amax) const {
  OCTET_CHECK(weight.rank() == 2 && weight.shape == out.data.shape);
  OCTET_CHECK(weight.dtype == DType::kF32 || weight.dtype == DType::kBF16 || weight.dtype == DType::kF16);
  OCTET_CHECK(out.format == weight_format() && out.data.dtype == out.format.dtype);
  OCTET_CHECK(amax.empty() || static_cast<int64_t>(amax.size()) == out.scale.num_elements());
  check_scale(out);
  quantize_checked(weight, out, threads, amax);
}

void QuantScheme::dequantize(ConstQuantTensor weight, Tensor out, ThreadPool& threads) const {
  OCTET_CHECK(weight.data.rank() == 2 && weight.data.shape == out.shape);
  check_scale(weight);
  for_each_weight_row(weight.data, threads, [&](int64_t row, std::span<float> values) {
    if (weight.format.quantized()) {
      const RowScales scales = row_scales(weight, row);
      for (size_t k = 0; k < values.size(); ++k)
        values[k] *= scales.scales[static_cast<int64_t>(k) / scales.columns_per_scale];
    }
    write_weight_row(out, row, values);
  });
}

float weight_amax(ConstTensor weight, ThreadPool& threads) {
  std::mutex mutex;
  float amax = 0.0f;
  for_each_weight_row(weight, threads, [&](int64_t, std::span<float> values) {
    const float of_row = amax_of(values);
    const std::lock_guard lock(mutex);
    amax = std::max(amax, of_row);
  });
  return amax;
}

std::span<const QuantScheme* const> quant_schemes() {
  static const QuantScheme* const kSchemes[] = {&bf16_scheme(),         &f16_scheme(),         &f32_scheme(),
                                                &fp8_block_scheme(),    &fp8_channel_scheme(), &fp8_tensor_scheme(),
                                                &int8_channel_scheme(), &int8_tensor_scheme()};
  return kSchemes;
}

const QuantScheme* find_scheme(std::string_view name) {
  for (const QuantScheme* scheme : quant_schemes()) {
    if (scheme->name() == name) return scheme;
  }
  return nullptr;
}

}  // namespace octet
