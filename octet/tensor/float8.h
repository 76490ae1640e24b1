// FP8 values (OCP 8-bit floating point, as in torch and ml_dtypes) and their reference conversions.
//
// E4M3 ("fn"): 1-4-3 bits, bias 7, largest value 448 (0x7e), no infinity, NaN 0x7f and 0xff, least subnormal 2^-9.
// E5M2: 1-5-2 bits, bias 15, largest value 57344 (0x7b), infinity 0x7c, NaN above it.
//
// from F32: round to nearest even, SATURATING: finite values and infinities beyond the largest become the largest; NaN
// becomes NaN with its sign (0x7f / 0x7e...). Every cast of octet saturates (an unsaturated one turns overflow to NaN).
#pragma once

#include <bit>
#include <cstdint>

namespace octet {

struct F8E4M3 {
  uint8_t bits;
};
struct F8E5M2 {
  uint8_t bits;
};

inline constexpr float kMaxF8E4M3 = 448.0f;
inline constexpr float kMaxF8E5M2 = 57344.0f;

constexpr float to_f32(F8E4M3 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x80u) << 24;
  const uint32_t magnitude = value.bits & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  // The bits at F32's place are value * 2^-120; the product is exact, subnormals included.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 20) * 0x1p120f));
}

constexpr float to_f32(F8E5M2 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x80u) << 24;
  const uint32_t magnitude = value.bits & 0x7fu;
  if (magnitude >= 0x7cu) return std::bit_cast<float>(sign | (magnitude == 0x7cu ? 0x7f800000u : 0x7fc00000u));
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 21) * 0x1p112f));
}

constexpr F8E4M3 to_f8_e4m3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return F8E4M3{static_cast<uint8_t>(sign | 0x7fu)};
  if (magnitude >= 0x43e00000u) return F8E4M3{static_cast<uint8_t>(sign | 0x7eu)};  // 448 and more
  if (magnitude < 0x3c800000u) {  // below 2^-6: F32 addition rounds to a multiple of 2^-9
    const float aligned = std::bit_cast<float>(magnitude) + 0x1p14f;
    return F8E4M3{static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x46800000u))};
  }
  const uint32_t rounded = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
  return F8E4M3{static_cast<uint8_t>(sign | ((rounded - (120u << 23)) >> 20))};
}

constexpr F8E5M2 to_f8_e5m2(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return F8E5M2{static_cast<uint8_t>(sign | 0x7eu)};
  if (magnitude >= 0x47600000u) return F8E5M2{static_cast<uint8_t>(sign | 0x7bu)};  // 57344 and more
  if (magnitude < 0x38800000u) {                                                    // below 2^-14: multiples of 2^-16
    const float aligned = std::bit_cast<float>(magnitude) + 0x1p7f;
    return F8E5M2{static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x43000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffffu + ((magnitude >> 21) & 1u);
  return F8E5M2{static_cast<uint8_t>(sign | ((rounded - (112u << 23)) >> 21))};
}

}  // namespace octet
