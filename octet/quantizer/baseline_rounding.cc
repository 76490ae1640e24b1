#include "octet/quantizer/baseline_rounding.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

constexpr float kScaleOfZeros = 0x1p-7f;  // llm-compressor's: the epsilon of BF16

float rounded_bf16(float value) { return to_f32(to_bf16(value)); }

// Of AutoFP8.
float multiplier(float amax) { return rounded_bf16(kMaxF8E4M3 / std::max(amax, 1e-12f)); }

// Of llm-compressor.
float bf16_scale(float amax, DType dtype) {
  const float scale = rounded_bf16(amax / (dtype == DType::kI8 ? 127.5f : kMaxF8E4M3));
  return scale == 0.0f ? kScaleOfZeros : scale;
}

// The largest magnitude of each of out's scales.
std::vector<float> amax_of_scales(ConstTensor weight, const QuantFormat& format, ThreadPool& threads) {
  if (format.granularity == Granularity::kTensor) return {weight_amax(weight, threads)};
  const Shape shape = format.scale_shape(weight.dim(0), weight.dim(1));
  const bool blocks = format.granularity == Granularity::kBlock;
  const int64_t across = blocks ? shape[1] : 1, down = blocks ? format.group_rows : 1;
  const auto columns = static_cast<size_t>(blocks ? format.group_cols : weight.dim(1));
  std::vector<float> amax(static_cast<size_t>(shape.num_elements()), 0.0f);
  std::vector<float> values(static_cast<size_t>(weight.dim(1)));
  for (int64_t row = 0; row < weight.dim(0); ++row) {
    read_weight_row(weight, row, values);
    for (int64_t tile = 0; tile < across; ++tile) {
      const size_t first = static_cast<size_t>(tile) * columns;
      float& largest = amax[static_cast<size_t>(row / down * across + tile)];
      largest = std::max(largest, amax_of(std::span(values).subspan(first, std::min(columns, values.size() - first))));
    }
  }
  return amax;
}

// Codes of real(row, column, weight) by llm-compressor's rounding, with the scales that are there.
template <class Real>
void write_codes(ConstTensor weight, QuantTensor out, ThreadPool& threads, Real&& real) {
  for_each_weight_row(weight, threads, [&](int64_t row, std::span<float> values) {
    for (size_t k = 0; k < values.size(); ++k) {
      const auto column = static_cast<int64_t>(k);
      values[k] = rounded_bf16(real(row, column, values[k]) / scale_at(out, row, column));
    }
    write_weight_row(out.data, row, values);
  });
}

}  // namespace

std::string baseline_declines(Recipe recipe, const QuantFormat& format, DType dtype) {
  if (dtype != DType::kBF16) return fmt::format("is of weights in bf16, not {}", dtype_name(dtype));
  if (recipe == Recipe::kBaselineAutoFp8 && format != kF8Tensor) return "has one FP8 scale per tensor (scheme fp8)";
  return "";
}

void round_as_baseline(Recipe recipe, ConstTensor weight, const HessianFactor* factor, QuantTensor out,
                       ThreadPool& threads) {
  OCTET_CHECK(baseline_declines(recipe, out.format, weight.dtype).empty());
  const std::vector<float> amax = amax_of_scales(weight, out.format, threads);
  float* scales = out.scale.data<float>();
  if (recipe == Recipe::kBaselineAutoFp8) {
    const float by = multiplier(amax[0]);
    scales[0] = 1.0f / by;
    for_each_weight_row(weight, threads, [&](int64_t row, std::span<float> values) {
      for (float& value : values) value = rounded_bf16(value * by);
      write_weight_row(out.data, row, values);
    });
    return;
  }
  for (size_t i = 0; i < amax.size(); ++i) scales[i] = bf16_scale(amax[i], out.format.dtype);
  if (recipe == Recipe::kBaselineLlmc) {
    write_codes(weight, out, threads, [](int64_t, int64_t, float value) { return value; });
    return;
  }
  OCTET_CHECK(factor != nullptr);
  round_with_hessian(weight, *factor, out, threads);
  std::vector<std::byte> codes(out.data.bytes, out.data.bytes + out.data.num_bytes());
  const ConstTensor found(codes.data(), out.format.dtype, weight.shape);
  write_codes(found, out, threads,
              [&](int64_t row, int64_t column, float code) { return rounded_bf16(code * scale_at(out, row, column)); });
}

}  // namespace octet
