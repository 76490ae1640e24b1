// Rows to 8 bits, by the rules and to the bit of ops/quantize.h: for quantize, rms_norm, silu_and_mul and
// paged_attention.
#pragma once

#include <algorithm>
#include <limits>

#include "octet/kernels/cpu/vector_math.h"
#include "octet/ops/quantize.h"

namespace octet {

// to = sat_e4m3(from / scale), a true division as in the reference.
template <class V>
void encode_row_divided(const float* from, int64_t count, float scale, F8E4M3* to) {
  const auto by = V::set(scale);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) store_as<V>(to + i, V::div(V::load(from + i), by));
  if (i < count) store_as_partial<V>(to + i, V::div(load_partial<V>(from + i, count - i), by), count - i);
}

// to = sat_e4m3(from * factor).
template <class V>
void encode_row_multiplied(const float* from, int64_t count, float factor, F8E4M3* to) {
  const auto by = V::set(factor);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) store_as<V>(to + i, V::mul(V::load(from + i), by));
  if (i < count) store_as_partial<V>(to + i, V::mul(load_partial<V>(from + i, count - i), by), count - i);
}

template <class V>
float max_abs(const float* row, int64_t count) {
  auto most = V::zero();  // second operand of max: a NaN does not replace it
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) most = V::max(abs<V>(V::load(row + i)), most);
  if (i < count) most = V::max(abs<V>(load_partial<V>(row + i, count - i)), most);
  return V::max_lane(most);
}

// Scales of columns one after the other: of each group, or of the whole row.
template <class V>
void quantize_f8_row(const float* row, const QuantTensor& out, int64_t t) {
  const bool grouped = out.format.granularity == Granularity::kGroup;
  const int64_t count = out.data.dim(1);
  const int64_t width = grouped ? out.format.group_cols : count;
  const int64_t num_scales = grouped ? out.scale.dim(1) : 1;
  float* scale = out.scale.template data<float>() + t * num_scales;
  F8E4M3* codes = out.data.template row<F8E4M3>(t);
  for (int64_t i = 0, begin = 0; i < num_scales; ++i, begin += width) {
    const int64_t part = std::min(width, count - begin);
    if (out.format.dynamic) scale[i] = dynamic_f8_scale(out.format, max_abs<V>(row + begin, part));
    encode_row_divided<V>(row + begin, part, scale[i], codes + begin);
  }
}

struct RowRange {
  float low, high;  // a NaN for low: one of the values is a NaN
};

// With NaNs the extremes do not matter.
template <class V>
RowRange range_of(const float* row, int64_t count) {
  // A missing lane repeats the first element. Magnitudes as integers: a NaN's is above infinity's.
  const auto first = V::set(row[0]);
  auto low = first, high = first;
  auto magnitude = V::iset(0);
  const auto add = [&](typename V::Float x) __attribute__((always_inline)) {
    low = V::min(low, x);
    high = V::max(high, x);
    const auto bits = V::iand(V::bits(x), V::iset(0x7fffffff));
    magnitude = V::select_gt(bits, magnitude, bits, magnitude);
  };
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) add(V::load(row + i));
  if (i < count) {
    float lanes[V::kLanes];
    std::fill_n(lanes, V::kLanes, row[0]);
    std::memcpy(lanes, row + i, static_cast<size_t>(count - i) * sizeof(float));
    add(V::load(lanes));
  }
  const auto nan = V::select_gt(magnitude, V::iset(0x7f800000), V::iset(0x3f800000), V::iset(0));
  const bool has_nan = V::max_lane(V::from_bits(nan)) > 0.0f;
  const float lowest = -V::max_lane(V::sub(V::zero(), low));
  return {has_nan ? __builtin_nanf("") : lowest, V::max_lane(high)};
}

// Codes of one vector: sat(round(x / scale) + zero_point), in the low byte of each lane.
template <class V>
[[gnu::always_inline]] inline typename V::Int encode_i8(typename V::Float x, typename V::Float scale,
                                                        typename V::Float zero_point) {
  const auto magnitude = V::iand(V::bits(x), V::iset(0x7fffffff));
  x = V::from_bits(V::select_gt(magnitude, V::iset(0x7f800000), V::iset(0), V::bits(x)));  // NaN is coded as zero
  const auto code = V::add(V::round(V::div(x, scale)), zero_point);
  return V::iand(V::to_int(V::max(V::min(code, V::set(127.0f)), V::set(-128.0f))), V::iset(0xff));
}

template <class V>
void encode_i8_row(const float* from, int64_t count, const I8Scale& by, int8_t* to) {
  const auto scale = V::set(by.scale), zero_point = V::set(static_cast<float>(by.zero_point));
  auto* codes = reinterpret_cast<uint8_t*>(to);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) {
    V::store_low(codes + i, encode_i8<V>(V::load(from + i), scale, zero_point));
  }
  if (i == count) return;
  uint8_t lanes[V::kLanes];
  V::store_low(lanes, encode_i8<V>(load_partial<V>(from + i, count - i), scale, zero_point));
  std::memcpy(codes + i, lanes, static_cast<size_t>(count - i));
}

template <class V>
void quantize_i8_row(const float* row, const QuantTensor& out, int64_t t) {
  const int64_t count = out.data.dim(1);
  const int64_t at = out.format.granularity == Granularity::kTensor ? 0 : t;
  float* scale = out.scale.template data<float>() + at;
  int32_t* zero_point = out.format.zero_point ? out.zero_point.template data<int32_t>() + at : nullptr;
  I8Scale by{.scale = *scale, .zero_point = zero_point && !out.format.dynamic ? *zero_point : 0};
  if (out.format.dynamic) {
    const RowRange range = count > 0 ? range_of<V>(row, count) : RowRange{0.0f, 0.0f};
    by = dynamic_i8_scale(out.format, range.low, range.high);
    *scale = by.scale;
    if (zero_point) *zero_point = by.zero_point;
  }
  int8_t* codes = out.data.template row<int8_t>(t);
  if (by.scale <= std::numeric_limits<float>::max()) return encode_i8_row<V>(row, count, by, codes);
  std::memset(codes, 0, static_cast<size_t>(count));
}

// Row t of an activation in out's 8-bit format.
template <class V>
void quantize_row(const float* row, const QuantTensor& out, int64_t t) {
  if (out.format.dtype == DType::kI8) return quantize_i8_row<V>(row, out, t);
  if (out.format.granularity != Granularity::kTensor) return quantize_f8_row<V>(row, out, t);
  const float inverse = 1.0f / out.scale.template data<float>()[0];
  encode_row_multiplied<V>(row, out.data.dim(1), inverse, out.data.template row<F8E4M3>(t));
}

}  // namespace octet
