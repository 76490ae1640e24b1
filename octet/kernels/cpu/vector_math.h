// What every kernel template shares: partial loads and stores, conversions from and to the 8- and 16-bit types, exp.
// V is a vector type (avx2_vector.h); everything is a template over it, so that each instruction set has its own copy.
#pragma once

#include <cstring>
#include <type_traits>

#include "octet/tensor/tensor.h"

namespace octet {

// The factor that V::load_quads left out.
inline constexpr float kQuadsScale = 0x1p120f;

template <class V, class T>
[[gnu::always_inline]] inline typename V::Float load_partial(const T* p, int64_t count) {
  T lanes[V::kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(T));
  return V::load(lanes);
}

template <class V>
[[gnu::always_inline]] inline void store_partial(float* p, typename V::Float a, int64_t count) {
  float lanes[V::kLanes];
  V::store(lanes, a);
  std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

template <class V>
[[gnu::always_inline]] inline typename V::Float abs(typename V::Float a) {
  return V::from_bits(V::iand(V::bits(a), V::iset(0x7fffffff)));
}

// The layout of an 8-bit float type, for encode_f8.
struct F8E4M3Layout {
  static constexpr int kShift = 20;         // mantissa bits that F32 has more
  static constexpr int kBiasGap = 120;      // F32's exponent bias less this type's
  static constexpr float kAlign = 0x1p14f;  // adding it rounds a subnormal to this type's last place
  static constexpr int32_t kAlignBits = 0x46800000;
  static constexpr int32_t kMinNormal = 0x3c800000;  // bits of 2^-6
  static constexpr int32_t kMax = 0x43e00000;        // bits of 448
  static constexpr int32_t kMaxCode = 0x7e, kNanCode = 0x7f;
};
struct F8E5M2Layout {
  static constexpr int kShift = 21;
  static constexpr int kBiasGap = 112;
  static constexpr float kAlign = 0x1p7f;
  static constexpr int32_t kAlignBits = 0x43000000;
  static constexpr int32_t kMinNormal = 0x38800000;  // bits of 2^-14
  static constexpr int32_t kMax = 0x47600000;        // bits of 57344
  static constexpr int32_t kMaxCode = 0x7b, kNanCode = 0x7e;
};

// 8-bit codes of F32 lanes, in the low byte of each lane: float8.h's conversion (nearest even, saturating), all lanes
// at once.
template <class V, class Layout>
[[gnu::always_inline]] inline typename V::Int encode_f8(typename V::Float value) {
  const auto bits = V::bits(value);
  const auto sign = V::iand(V::template shift_right<24>(bits), V::iset(0x80));
  const auto magnitude = V::iand(bits, V::iset(0x7fffffff));
  const auto odd = V::iand(V::template shift_right<Layout::kShift>(magnitude), V::iset(1));
  const auto rounded =
      V::iadd(V::iadd(magnitude, odd), V::iset((1 << (Layout::kShift - 1)) - 1 - (Layout::kBiasGap << 23)));
  const auto normal = V::template shift_right<Layout::kShift>(rounded);
  const auto subnormal =
      V::isub(V::bits(V::add(V::from_bits(magnitude), V::set(Layout::kAlign))), V::iset(Layout::kAlignBits));
  auto code = V::select_gt(V::iset(Layout::kMinNormal), magnitude, subnormal, normal);
  code = V::select_gt(magnitude, V::iset(Layout::kMax - 1), V::iset(Layout::kMaxCode), code);
  code = V::select_gt(magnitude, V::iset(0x7f800000), V::iset(Layout::kNanCode), code);
  return V::ior(code, sign);
}

// BF16 bits of F32 lanes: bf16.h's conversion.
template <class V>
[[gnu::always_inline]] inline typename V::Int encode_bf16(typename V::Float value) {
  const auto bits = V::bits(value);
  const auto high = V::template shift_right<16>(bits);
  const auto odd = V::iand(high, V::iset(1));
  const auto rounded = V::template shift_right<16>(V::iadd(V::iadd(bits, V::iset(0x7fff)), odd));
  const auto magnitude = V::iand(bits, V::iset(0x7fffffff));
  return V::select_gt(magnitude, V::iset(0x7f800000), V::ior(high, V::iset(0x40)), rounded);
}

// Any element type.
template <class V, class T>
[[gnu::always_inline]] inline typename V::Float load_exact(const T* p) {
  if constexpr (std::is_same_v<T, F8E4M3>) {
    return V::load_true(p);
  } else {
    return V::load(p);
  }
}

template <class V, class T>
[[gnu::always_inline]] inline typename V::Float load_exact_partial(const T* p, int64_t count) {
  T lanes[V::kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(T));
  return load_exact<V>(lanes);
}

template <class V>
[[gnu::always_inline]] inline void store_as(float* p, typename V::Float a) {
  V::store(p, a);
}
template <class V>
[[gnu::always_inline]] inline void store_as(BF16* p, typename V::Float a) {
  V::store_low(reinterpret_cast<uint16_t*>(p), encode_bf16<V>(a));
}
template <class V>
[[gnu::always_inline]] inline void store_as(F8E4M3* p, typename V::Float a) {
  V::store_low(reinterpret_cast<uint8_t*>(p), encode_f8<V, F8E4M3Layout>(a));
}
template <class V>
[[gnu::always_inline]] inline void store_as(F8E5M2* p, typename V::Float a) {
  V::store_low(reinterpret_cast<uint8_t*>(p), encode_f8<V, F8E5M2Layout>(a));
}
template <class V, class T>
[[gnu::always_inline]] inline void store_as_partial(T* p, typename V::Float a, int64_t count) {
  T lanes[V::kLanes];
  store_as<V>(lanes, a);
  std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(T));
}

// from[0, count) * factor -> to, as F32, and zeros up to the next multiple of kLanes.
template <class V, class T>
void convert_row(const T* from, int64_t count, float factor, float* to) {
  const auto by = V::set(factor);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) V::store(to + i, V::mul(load_exact<V>(from + i), by));
  if (i < count) V::store(to + i, V::mul(load_exact_partial<V>(from + i, count - i), by));
}

// e^x to about 1 ulp over all of F32: 2^n * e^r with n = round(x / ln 2) and |r| <= ln 2 / 2, Taylor to r^7 (remainder
// below 0.1 ulp). 2^n goes in two factors, so that overflow gives infinity and small results round through the
// subnormals. exp(-inf) = 0 and exp(0) = 1 exactly; NaN stays NaN.
template <class V>
[[gnu::always_inline]] inline typename V::Float exp(typename V::Float x) {
  x = V::min(V::set(89.0f), V::max(V::set(-104.0f), x));
  const auto n = V::round(V::mul(x, V::set(1.44269504f)));
  auto r = V::fnma(n, V::set(0x1.62e4p-1f), x);  // ln 2 in two parts; the first is short, its product exact
  r = V::fnma(n, V::set(0x1.7f7d1cp-20f), r);
  auto p = V::set(1.0f / 5040.0f);
  p = V::fma(p, r, V::set(1.0f / 720.0f));
  p = V::fma(p, r, V::set(1.0f / 120.0f));
  p = V::fma(p, r, V::set(1.0f / 24.0f));
  p = V::fma(p, r, V::set(1.0f / 6.0f));
  p = V::fma(p, r, V::set(0.5f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  const auto whole = V::to_int(n);
  const auto half = V::template shift_right_signed<1>(whole);
  const auto bias = V::iset(127);
  const auto scale1 = V::from_bits(V::template shift_left<23>(V::iadd(half, bias)));
  const auto scale2 = V::from_bits(V::template shift_left<23>(V::iadd(V::isub(whole, half), bias)));
  return V::mul(V::mul(p, scale1), scale2);
}

}  // namespace octet
