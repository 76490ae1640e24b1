// One token of each row of logits: a draw from softmax(x[t] / temperature) restricted, in this order, to
//   min_p: values at most -min_gap below the largest (min_gap = log(min_p) * temperature);
//   top_k: values not below the k-th largest;
//   top_p: the smallest set of likeliest tokens whose weights reach top_p of the weights left so far, equal values by
//          index;
// or, where inverse_temperature is 0, the first place of the largest value.
//   index[t] = the first i whose weights up to and with it, of tokens that are left, exceed uniform * 2^-64 of all.
//              kBrokenRow when the row holds a NaN or plus infinity, or nothing but minus infinities.
// A token's weight is token_weight((x - largest) * inverse_temperature), an integer: sums of weights are exact in any
// order, so that every kernel chooses the same token. octet/sampling/selection.h on the host sums floating-point
// numbers: it chooses the same token but where the draw falls within rounding of the border between two.
//
// x [T, V] f32 (rows may be strided), V at most 2^20; draws [T, 8] i32: a RowDraw each; index [T] i32.
#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "octet/ops/shape_check.h"

namespace octet {

inline constexpr int32_t kBrokenRow = -1;

struct RowDraw {
  double top_p = 1.0;
  uint64_t uniform = 0;  // uniform in [0, 1), times 2^64
  float inverse_temperature = 0.0f;
  float min_gap = -std::numeric_limits<float>::infinity();
  int32_t top_k = 0;  // 0: all
  int32_t unused = 0;
};
inline constexpr int64_t kRowDrawWords = sizeof(RowDraw) / sizeof(int32_t);
static_assert(kRowDrawWords == 8);

// 2^-n/2 <= polynomial <= 2^n/2 of 2^f, f in [-0.5, 0.5], within 2^-23 of itself: the series of exp(f * ln 2).
inline constexpr float kExp2Series[] = {1.0f,          0.69314718f,   0.24022651f,   0.05550411f,
                                        0.0096181291f, 0.0013333558f, 0.00015403530f};
inline constexpr int kWeightBits = 42;  // the largest value's weight is 2^kWeightBits: sums of 2^20 fit 63 bits

// `power` = the polynomial, times 2^exponent, as an integer, cut off.
constexpr uint64_t weight_of(float power, int exponent) {
  const auto bits = std::bit_cast<uint32_t>(power);
  const uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  const int shift = static_cast<int>(bits >> 23) - 127 - 23 + kWeightBits + exponent;
  if (shift < -23) return 0;
  return shift >= 0 ? mantissa << shift : mantissa >> -shift;
}

// exp(x) * 2^kWeightBits for x <= 0; every operation rounds as written here.
inline uint64_t token_weight(float x) {
  constexpr float kLog2E = 1.44269504f, kLeast = -100.0f;
  if (!(x > kLeast)) return 0;
  const float t = x * kLog2E;
  const float n = std::nearbyint(t);
  const float f = t - n;
  float power = kExp2Series[6];
  for (int i = 5; i >= 0; --i) power = std::fma(power, f, kExp2Series[i]);
  return weight_of(power, static_cast<int>(n));
}

// The weight that top_p asks for, of `total`; at least 1.
inline uint64_t top_p_target(double top_p, uint64_t total) {
  const double target = std::ceil(top_p * static_cast<double>(total));
  return target < 1.0 ? 1 : static_cast<uint64_t>(target);
}

struct SampleOp {
  static constexpr std::string_view kName = "sample";
  Tensor index;
  ConstTensor x;
  ConstTensor draws;

  void check() const;
};

}  // namespace octet
