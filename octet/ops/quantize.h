// Activations to 8 bits. x [T, K] f32|bf16 -> out [T, K] in out's format. The same arithmetic wherever an op quantises
// its output (rms_norm, silu_and_mul, paged_attention).
//
// f8_e4m3, q = sat_e4m3(x / scale); amax is the largest magnitude of the token or group, at most amax_cap if there is
// one (FBGEMM's bound: what lies above it saturates):
//   dynamic per token:  scale[t] = max(amax / 448, 1 / (448 * 512))                                (vLLM's rule, floor)
//   dynamic per group of group_cols columns, the last of which may be short:
//                       scale[t, g] = max(amax, 1e-10) / 448                                 (DeepSeek's rule, floor)
//   power_of_two:       2^ceil(log2(scale)), per group of max(amax / 448, 1e-10)                      (scale_fmt ue8m0)
//   static per tensor:  q = sat_e4m3(x * (1 / scale)), scale given
// A NaN becomes NaN and does not count in the maximum; what shares its scale with an infinity becomes zeros and NaN.
//
// i8, q = sat_i8(round(x / scale) + zero_point), to nearest even, in [-128, 127]; zero_point is 0 in a format without:
//   dynamic per token:  scale[t] = max(amax / 127, 2^-126)                                                (vLLM's rule)
//   with zero points:   low = min(min_k x, 0), high = max(max_k x, 0), scale[t] = max((high - low) / 255, 2^-126),
//                       zero_point[t] = round(-128 - low / scale[t])                       (compressed-tensors' rule)
//   static per tensor:  scale, zero_point given
// No code is a NaN: a token with a NaN or infinity has an infinite scale (zero point and codes 0), so that what comes
// of it, 0 * infinity, is NaN. With a given scale a NaN is coded as zero is.
//
// Scale given per token (f8 or i8 without zero points, granularity kToken, not dynamic; this op only): as dynamic, but
// for the scale; tensor parallel layers use it after taking the maximum of the ranks' dynamic scales.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

inline constexpr float kMinTokenScale = 1.0f / (448.0f * 512.0f);
inline constexpr float kMinGroupAmax = 1e-10f;
inline constexpr float kMinI8Scale = 0x1p-126f;  // the smallest normal number: rows of zeros can be divided by it
inline constexpr int64_t kGroupColsStep = 32;    // group_cols of an activation is a multiple

// An i8 row's scale, with the zero point where its format has one.
struct I8Scale {
  float scale = 1.0f;
  int32_t zero_point = 0;
};

// The dynamic scale of values whose largest magnitude is amax, for a format in f8_e4m3.
float dynamic_f8_scale(const QuantFormat& format, float amax);
// The dynamic scale of values in [low, high], for a format in i8. A NaN for either: one of the values is a NaN.
I8Scale dynamic_i8_scale(const QuantFormat& format, float low, float high);

// A scale per token that the caller of QuantizeOp computed.
inline bool token_scale_given(const QuantFormat& format) {
  return format.granularity == Granularity::kToken && !format.dynamic && !format.zero_point;
}
// Whether the formats above include this one, in 8 bits and not with a scale given per token.
bool is_quantized_activation(const QuantFormat& format);

struct QuantizeOp {
  static constexpr std::string_view kName = "quantize";
  QuantTensor out;
  ConstTensor x;

  void check() const;
};

}  // namespace octet
