// Avx2: eight F32 lanes, as the kernel templates of this folder use them. Included only after avx2.cc's target pragma.
//
// Conventions shared with Avx512:
//   max(a, b), min(a, b)  give b where either is NaN
//   load_quads(F8E4M3*)   gives value * 2^-120 (kQuadsScale undoes it); NaN codes read as +-480
//   load_true(F8E4M3*)    gives values, NaN codes too
//   *_partial(.., n)      touch n < kLanes elements only; missing lanes read as 0
//   load_transposed       kLanes rows of kLanes dwords, by columns
//   load_words, *_words   two 16-bit integers to a lane
//   sum4, sum             add lanes in one fixed tree: ((0+1)+(2+3)) + ((4+5)+(6+7))
#pragma once

#include <immintrin.h>

#include <cstring>

#include "octet/tensor/tensor.h"

namespace octet {

struct Avx2 {
  static constexpr int kLanes = 8;
  using Float = __m256;
  using Int = __m256i;

  [[gnu::always_inline]] static inline Float zero() { return _mm256_setzero_ps(); }
  [[gnu::always_inline]] static inline Float set(float value) { return _mm256_set1_ps(value); }
  [[gnu::always_inline]] static inline Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  [[gnu::always_inline]] static inline Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  [[gnu::always_inline]] static inline Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  [[gnu::always_inline]] static inline Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  [[gnu::always_inline]] static inline Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static inline Float fnma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }
  [[gnu::always_inline]] static inline Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  [[gnu::always_inline]] static inline Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  [[gnu::always_inline]] static inline Float round(Float a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  [[gnu::always_inline]] static inline float first(Float a) { return _mm256_cvtss_f32(a); }

  [[gnu::always_inline]] static inline Int iset(int32_t value) { return _mm256_set1_epi32(value); }
  [[gnu::always_inline]] static inline Int iadd(Int a, Int b) { return _mm256_add_epi32(a, b); }
  [[gnu::always_inline]] static inline Int isub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  [[gnu::always_inline]] static inline Int iand(Int a, Int b) { return _mm256_and_si256(a, b); }
  [[gnu::always_inline]] static inline Int ior(Int a, Int b) { return _mm256_or_si256(a, b); }
  template <int N>
  [[gnu::always_inline]] static inline Int shift_left(Int a) {
    return _mm256_slli_epi32(a, N);
  }
  template <int N>
  [[gnu::always_inline]] static inline Int shift_right(Int a) {
    return _mm256_srli_epi32(a, N);
  }
  template <int N>
  [[gnu::always_inline]] static inline Int shift_right_signed(Int a) {
    return _mm256_srai_epi32(a, N);
  }
  // a > b ? yes : no, per lane, signed.
  [[gnu::always_inline]] static inline Int select_gt(Int a, Int b, Int yes, Int no) {
    return _mm256_blendv_epi8(no, yes, _mm256_cmpgt_epi32(a, b));
  }
  [[gnu::always_inline]] static inline Int bits(Float a) { return _mm256_castps_si256(a); }
  [[gnu::always_inline]] static inline Float from_bits(Int a) { return _mm256_castsi256_ps(a); }
  [[gnu::always_inline]] static inline Int to_int(Float a) { return _mm256_cvtps_epi32(a); }
  [[gnu::always_inline]] static inline Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }

  // Lane i of out[d] is dword d of the row i * stride bytes behind `from`.
  [[gnu::always_inline]] static inline void load_transposed(const void* from, int64_t stride, Int (&out)[kLanes]) {
    const auto* rows = static_cast<const char*>(from);
#pragma GCC unroll 2
    for (int quarter = 0; quarter < 2; ++quarter) {
      Int pair[4];  // rows i and i + 4
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const char* row = rows + i * stride + 16 * quarter;
        const Int low = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
        pair[i] = _mm256_inserti128_si256(low, _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 4 * stride)), 1);
      }
      const Int a = _mm256_unpacklo_epi32(pair[0], pair[1]), b = _mm256_unpacklo_epi32(pair[2], pair[3]);
      const Int c = _mm256_unpackhi_epi32(pair[0], pair[1]), d = _mm256_unpackhi_epi32(pair[2], pair[3]);
      out[4 * quarter] = _mm256_unpacklo_epi64(a, b);
      out[4 * quarter + 1] = _mm256_unpackhi_epi64(a, b);
      out[4 * quarter + 2] = _mm256_unpacklo_epi64(c, d);
      out[4 * quarter + 3] = _mm256_unpackhi_epi64(c, d);
    }
  }

  [[gnu::always_inline]] static inline Float load(const float* p) { return _mm256_loadu_ps(p); }
  // One shuffle puts each half-word at the top of its lane: two operations less than widening and shifting.
  [[gnu::always_inline]] static inline Float load(const BF16* p) {
    const Int spread = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                                        -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return from_bits(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(words), spread));
  }
  [[gnu::always_inline]] static inline Float load(const F16* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // Four vectors from 32 codes, value * 2^-120: lane i of out[j] is code 4 i + j. Sign and magnitude of two codes at a
  // time move to a BF16's place, from where they go to the upper half of a lane: nine operations in all.
  [[gnu::always_inline]] static inline void load_quads(const F8E4M3* p, Float (&out)[4]) {
    decode_quads(_mm256_loadu_si256(reinterpret_cast<const Int*>(p)), out);
  }
  [[gnu::always_inline]] static inline void decode_quads(Int codes, Float (&out)[4]) {
    const Int bf16_place = _mm256_set1_epi16(static_cast<int16_t>(0x87f0));
    const Int odd = iand(_mm256_srai_epi16(codes, 4), bf16_place);
    const Int even = iand(_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 4), bf16_place);
    const Int upper = iset(static_cast<int32_t>(0xffff0000u));
    out[0] = from_bits(shift_left<16>(even));
    out[1] = from_bits(shift_left<16>(odd));
    out[2] = from_bits(iand(even, upper));
    out[3] = from_bits(iand(odd, upper));
  }
  // True values, NaN codes kept: by way of FP16, which has E4M3's subnormals as its own (times 2^-8). For caches, where
  // small values are common: load's subnormal F32 cost an FMA or a product about 100 cycles each.
  [[gnu::always_inline]] static inline Float load_true(const F8E4M3* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i half = _mm_and_si128(_mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes), 1),
                                       _mm_set1_epi16(static_cast<int16_t>(0xbf80)));
    const __m128i magnitude_bits = _mm_set1_epi16(0x3f80);
    const __m128i nan = _mm_cmpeq_epi16(_mm_and_si128(half, magnitude_bits), magnitude_bits);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(half, nan)), _mm256_set1_ps(0x1p8f));
  }
  [[gnu::always_inline]] static inline Float load(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // E5M2 is the upper byte of FP16.
  [[gnu::always_inline]] static inline Float load(const F8E5M2* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes));
  }

  // 16-bit integers, two to a lane.
  static constexpr int kWords = 2 * kLanes;
  [[gnu::always_inline]] static inline Int wset(int16_t value) { return _mm256_set1_epi16(value); }
  [[gnu::always_inline]] static inline Int wsub(Int a, Int b) { return _mm256_sub_epi16(a, b); }
  [[gnu::always_inline]] static inline Int load_words(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  [[gnu::always_inline]] static inline Int load_words(const int16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const Int*>(p));
  }
  [[gnu::always_inline]] static inline void store_words(int16_t* p, Int a) {
    _mm256_storeu_si256(reinterpret_cast<Int*>(p), a);
  }
  // Each lane of `sum` plus the products of its two words.
  [[gnu::always_inline]] static inline Int add_products(Int a, Int b, Int sum) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }
  [[gnu::always_inline]] static inline __m128i isum4(Int a, Int b, Int c, Int d) {
    const Int quarters = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256(quarters, 1));
  }

  [[gnu::always_inline]] static inline void store(float* p, Float a) { _mm256_storeu_ps(p, a); }
  // The low 8 / 16 bits of each lane, which hold values below 2^8 / 2^16.
  [[gnu::always_inline]] static inline void store_low(uint8_t* p, Int a) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  [[gnu::always_inline]] static inline void store_low(uint16_t* p, Int a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
  }

  // [sum(a), sum(b), sum(c), sum(d)]
  [[gnu::always_inline]] static inline __m128 sum4(Float a, Float b, Float c, Float d) {
    const Float quarters = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1));
  }
  // The lanes in an order in which that tree adds neighbours: 0 and 1, 2 and 3, then these pairs, ...
  static constexpr int tree_lane(int order) { return order; }
  [[gnu::always_inline]] static inline float sum(Float a) { return _mm_cvtss_f32(sum4(a, a, a, a)); }
  [[gnu::always_inline]] static inline float max_lane(Float a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
};

}  // namespace octet
