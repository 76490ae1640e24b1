// The scales of dynamic formats. Plain code: kernels of every instruction set call it once per token or group.
#include "octet/ops/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/tensor/float8.h"

namespace octet {
namespace {

// The smallest power of two that is not below `value`, a positive normal number. Infinity stays.
float ceil_power_of_two(float value) {
  if (!std::isfinite(value)) return value;
  int exponent = 0;
  const float mantissa = std::frexp(value, &exponent);  // in [0.5, 1)
  return std::ldexp(1.0f, mantissa == 0.5f ? exponent - 1 : exponent);
}

}  // namespace

float dynamic_f8_scale(const QuantFormat& format, float amax) {
  if (format.amax_cap > 0.0f) amax = std::min(amax, format.amax_cap);
  if (format.granularity == Granularity::kGroup) {
    if (!format.power_of_two) return std::max(amax, kMinGroupAmax) / kMaxF8E4M3;
    return ceil_power_of_two(std::max(amax / kMaxF8E4M3, kMinGroupAmax));
  }
  const float scale = std::max(amax / kMaxF8E4M3, kMinTokenScale);
  return format.power_of_two ? ceil_power_of_two(scale) : scale;
}

I8Scale dynamic_i8_scale(const QuantFormat& format, float low, float high) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (std::isnan(low) || std::isnan(high)) return {.scale = kInfinity};
  if (!format.zero_point) {
    const float amax = std::max(-low, high);
    return {.scale = std::max(amax / 127.0f, kMinI8Scale)};
  }
  low = std::min(low, 0.0f);
  high = std::max(high, 0.0f);
  if (!std::isfinite(high - low)) return {.scale = kInfinity};
  const float scale = std::max((high - low) / 255.0f, kMinI8Scale);
  const float zero_point = std::nearbyint(-128.0f - low / scale);
  return {.scale = scale, .zero_point = static_cast<int32_t>(std::clamp(zero_point, -128.0f, 127.0f))};
}

bool is_quantized_activation(const QuantFormat& format) {
  const Granularity g = format.granularity;
  const bool per_token = g == Granularity::kToken && format.dynamic;
  const bool per_tensor = g == Granularity::kTensor && !format.dynamic;
  if (format.dtype == DType::kI8) {
    return (per_token || per_tensor) && !format.power_of_two && format.amax_cap == 0.0f;
  }
  const bool per_group =
      g == Granularity::kGroup && format.dynamic && format.group_cols > 0 && format.group_cols % kGroupColsStep == 0;
  const bool plain_static = per_tensor && !format.power_of_two && format.amax_cap == 0.0f;
  return format.dtype == DType::kF8E4M3 && !format.zero_point && (per_token || per_group || plain_static);
}

}  // namespace octet
