// Avx512: sixteen F32 lanes (F, BW, DQ, VL). The conventions stand in avx2_vector.h; lanes add as the two halves' sum
// does there. Included only after avx512.cc's target pragma.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "octet/tensor/tensor.h"

namespace octet {

struct Avx512 {
  static constexpr int kLanes = 16;
  using Float = __m512;
  using Int = __m512i;

  [[gnu::always_inline]] static inline Float zero() { return _mm512_setzero_ps(); }
  [[gnu::always_inline]] static inline Float set(float value) { return _mm512_set1_ps(value); }
  [[gnu::always_inline]] static inline Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  [[gnu::always_inline]] static inline Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  [[gnu::always_inline]] static inline Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  [[gnu::always_inline]] static inline Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  [[gnu::always_inline]] static inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static inline Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
  [[gnu::always_inline]] static inline Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  [[gnu::always_inline]] static inline Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  [[gnu::always_inline]] static inline Float round(Float a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  [[gnu::always_inline]] static inline float first(Float a) { return _mm512_cvtss_f32(a); }

  [[gnu::always_inline]] static inline Int iset(int32_t value) { return _mm512_set1_epi32(value); }
  [[gnu::always_inline]] static inline Int iadd(Int a, Int b) { return _mm512_add_epi32(a, b); }
  [[gnu::always_inline]] static inline Int isub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  [[gnu::always_inline]] static inline Int iand(Int a, Int b) { return _mm512_and_si512(a, b); }
  [[gnu::always_inline]] static inline Int ior(Int a, Int b) { return _mm512_or_si512(a, b); }
  template <int N>
  [[gnu::always_inline]] static inline Int shift_left(Int a) {
    return _mm512_slli_epi32(a, N);
  }
  template <int N>
  [[gnu::always_inline]] static inline Int shift_right(Int a) {
    return _mm512_srli_epi32(a, N);
  }
  template <int N>
  [[gnu::always_inline]] static inline Int shift_right_signed(Int a) {
    return _mm512_srai_epi32(a, N);
  }
  [[gnu::always_inline]] static inline Int select_gt(Int a, Int b, Int yes, Int no) {
    return _mm512_mask_mov_epi32(no, _mm512_cmpgt_epi32_mask(a, b), yes);
  }
  [[gnu::always_inline]] static inline Int bits(Float a) { return _mm512_castps_si512(a); }
  [[gnu::always_inline]] static inline Float from_bits(Int a) { return _mm512_castsi512_ps(a); }
  [[gnu::always_inline]] static inline Int to_int(Float a) { return _mm512_cvtps_epi32(a); }
  [[gnu::always_inline]] static inline Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }

  [[gnu::always_inline]] static inline void load_transposed(const void* from, int64_t stride, Int (&out)[kLanes]) {
    const auto* rows = static_cast<const char*>(from);
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      Int four[4];  // rows i, i + 4, i + 8 and i + 12
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const char* row = rows + i * stride + 16 * quarter;
        const auto part = [&](int j) __attribute__((always_inline)) {
          return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 4 * j * stride));
        };
        four[i] = _mm512_inserti32x4(_mm512_castsi128_si512(part(0)), part(1), 1);
        four[i] = _mm512_inserti32x4(_mm512_inserti32x4(four[i], part(2), 2), part(3), 3);
      }
      const Int a = _mm512_unpacklo_epi32(four[0], four[1]), b = _mm512_unpacklo_epi32(four[2], four[3]);
      const Int c = _mm512_unpackhi_epi32(four[0], four[1]), d = _mm512_unpackhi_epi32(four[2], four[3]);
      out[4 * quarter] = _mm512_unpacklo_epi64(a, b);
      out[4 * quarter + 1] = _mm512_unpackhi_epi64(a, b);
      out[4 * quarter + 2] = _mm512_unpacklo_epi64(c, d);
      out[4 * quarter + 3] = _mm512_unpackhi_epi64(c, d);
    }
  }

  [[gnu::always_inline]] static inline Float load(const float* p) { return _mm512_loadu_ps(p); }
  [[gnu::always_inline]] static inline Float load(const BF16* p) {
    return from_bits(shift_left<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))));
  }
  [[gnu::always_inline]] static inline Float load(const F16* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  [[gnu::always_inline]] static inline void load_quads(const F8E4M3* p, Float (&out)[4]) {
    decode_quads(_mm512_loadu_si512(p), out);
  }
  [[gnu::always_inline]] static inline void decode_quads(Int codes, Float (&out)[4]) {
    const Int bf16_place = _mm512_set1_epi16(static_cast<int16_t>(0x87f0));
    const Int odd = iand(_mm512_srai_epi16(codes, 4), bf16_place);
    const Int even = iand(_mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 4), bf16_place);
    const Int upper = iset(static_cast<int32_t>(0xffff0000u));
    out[0] = from_bits(shift_left<16>(even));
    out[1] = from_bits(shift_left<16>(odd));
    out[2] = from_bits(iand(even, upper));
    out[3] = from_bits(iand(odd, upper));
  }
  [[gnu::always_inline]] static inline Float load_true(const F8E4M3* p) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    const __m256i magnitude_bits = _mm256_set1_epi16(0x3f80);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(half, magnitude_bits), magnitude_bits);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(half, nan)), _mm512_set1_ps(0x1p8f));
  }
  [[gnu::always_inline]] static inline Float load(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  [[gnu::always_inline]] static inline Float load(const F8E5M2* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8));
  }

  static constexpr int kWords = 2 * kLanes;
  [[gnu::always_inline]] static inline Int wset(int16_t value) { return _mm512_set1_epi16(value); }
  [[gnu::always_inline]] static inline Int wsub(Int a, Int b) { return _mm512_sub_epi16(a, b); }
  [[gnu::always_inline]] static inline Int load_words(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  [[gnu::always_inline]] static inline Int load_words(const int16_t* p) { return _mm512_loadu_si512(p); }
  [[gnu::always_inline]] static inline void store_words(int16_t* p, Int a) { _mm512_storeu_si512(p, a); }
  [[gnu::always_inline]] static inline Int add_products(Int a, Int b, Int sum) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
  }
  [[gnu::always_inline]] static inline __m256i ifold(Int a) {
    return _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  }
  [[gnu::always_inline]] static inline __m128i isum4(Int a, Int b, Int c, Int d) {
    const __m256i quarters =
        _mm256_hadd_epi32(_mm256_hadd_epi32(ifold(a), ifold(b)), _mm256_hadd_epi32(ifold(c), ifold(d)));
    return _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256(quarters, 1));
  }

  [[gnu::always_inline]] static inline void store(float* p, Float a) { _mm512_storeu_ps(p, a); }
  [[gnu::always_inline]] static inline void store_low(uint8_t* p, Int a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
  }
  [[gnu::always_inline]] static inline void store_low(uint16_t* p, Int a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a));
  }

  [[gnu::always_inline]] static inline __m256 fold(Float a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  }
  [[gnu::always_inline]] static inline __m128 sum4(Float a, Float b, Float c, Float d) {
    const __m256 quarters = _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
    return _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1));
  }
  static constexpr int tree_lane(int order) { return order / 2 + order % 2 * (kLanes / 2); }
  [[gnu::always_inline]] static inline float sum(Float a) { return _mm_cvtss_f32(sum4(a, a, a, a)); }
  [[gnu::always_inline]] static inline float max_lane(Float a) {
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
};

}  // namespace octet
