// DType dispatch without macros: dispatch<DType::kBF16, DType::kF32>(x.dtype, [&]<DType D>() { use<CType<D>>(); });
#pragma once

#include <algorithm>
#include <cmath>

#include "octet/base/error.h"
#include "octet/tensor/tensor.h"

namespace octet {

template <DType D>
struct CTypeOf;
template <>
struct CTypeOf<DType::kF32> {
  using type = float;
};
template <>
struct CTypeOf<DType::kBF16> {
  using type = BF16;
};
template <>
struct CTypeOf<DType::kF16> {
  using type = F16;
};
template <>
struct CTypeOf<DType::kF8E4M3> {
  using type = F8E4M3;
};
template <>
struct CTypeOf<DType::kF8E5M2> {
  using type = F8E5M2;
};
template <>
struct CTypeOf<DType::kI8> {
  using type = int8_t;
};
template <DType D>
using CType = typename CTypeOf<D>::type;

// Calls fn.operator()<D>() for the one D that equals `dtype`; an internal error when none does (callers check first).
template <DType... Ds, class Fn>
void dispatch(DType dtype, Fn&& fn) {
  const bool found = ((dtype == Ds ? (fn.template operator()<Ds>(), true) : false) || ...);
  if (!found) fail(ErrorCode::kInternal, "no instantiation for dtype {}", dtype_name(dtype));
}

constexpr float to_f32(float value) { return value; }

template <class T>
constexpr T from_f32(float value);
template <>
constexpr float from_f32<float>(float value) {
  return value;
}
template <>
constexpr BF16 from_f32<BF16>(float value) {
  return to_bf16(value);
}
template <>
constexpr F16 from_f32<F16>(float value) {
  return to_f16(value);
}
template <>
constexpr F8E4M3 from_f32<F8E4M3>(float value) {
  return to_f8_e4m3(value);
}
template <>
constexpr F8E5M2 from_f32<F8E5M2>(float value) {
  return to_f8_e5m2(value);
}
// To nearest even, saturating; a NaN becomes 0.
template <>
inline int8_t from_f32<int8_t>(float value) {
  if (std::isnan(value)) return 0;
  return static_cast<int8_t>(std::nearbyint(std::min(std::max(value, -128.0f), 127.0f)));
}

}  // namespace octet
