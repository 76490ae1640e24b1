// What the parity tests of whole ops cannot see: exp's error and the conversions over all of F32.
#include "octet/kernels/cpu/cpu.h"

#if defined(__x86_64__)

#include <gtest/gtest.h>
#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include "octet/kernels/cpu/avx2_vector.h"
#include "octet/kernels/cpu/vector_math.h"

namespace octet {
namespace {

void exp8(const float* x, float* y) { Avx2::store(y, exp<Avx2>(Avx2::load(x))); }
template <class T>
void encode8(const float* x, T* codes) {
  store_as<Avx2>(codes, Avx2::load(x));
}
template <class T>
void decode8(const T* codes, float* x) {
  Avx2::store(x, load_exact<Avx2>(codes));
}
// The load of the matmul's inner loop, its scale and order undone.
void load32(const F8E4M3* codes, float* x) {
  Avx2::Float quads[4];
  Avx2::load_quads(codes, quads);
  for (int j = 0; j < 4; ++j) {
    float lanes[8];
    Avx2::store(lanes, Avx2::mul(quads[j], Avx2::set(kQuadsScale)));
    for (int i = 0; i < 8; ++i) x[4 * i + j] = lanes[i];
  }
}
float sum8(const float* x) { return Avx2::sum(Avx2::load(x)); }
float max8(const float* x) { return Avx2::max_lane(Avx2::load(x)); }

}  // namespace
}  // namespace octet

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace octet {
namespace {

class Avx2Math : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cpu_features().avx2_fma) GTEST_SKIP() << "this processor has no AVX2";
  }
};

// Samples of every sign, exponent and mantissa, and the neighbours of rounding boundaries.
std::vector<float> floats_everywhere() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (uint32_t top = 0; top < 1u << 12; ++top) {  // halfway points of E4M3, and a step to either side
    for (uint32_t low : {0x00000u, 0x7ffffu, 0x80000u, 0x80001u, 0xfffffu})
      values.push_back(std::bit_cast<float>(top << 20 | low));
  }
  for (uint32_t top = 0; top < 1u << 16; ++top) {  // halfway points of BF16
    for (uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) values.push_back(std::bit_cast<float>(top << 16 | low));
  }
  for (int code = 0; code < 256; ++code) {  // halfway between subnormals
    const float step = to_f32(F8E4M3{static_cast<uint8_t>(code)});
    for (float half : {0x1p-10f, -0x1p-10f}) {
      for (float nudge : {0.0f, 1e-9f, -1e-9f}) values.push_back(step + half + nudge);
    }
  }
  while (values.size() % 8 != 0) values.push_back(0.0f);
  return values;
}

template <class T>
void expect_encodes_as_scalar() {
  const std::vector<float> values = floats_everywhere();
  int64_t wrong = 0;
  for (size_t i = 0; i < values.size(); i += 8) {
    T codes[8];
    encode8(&values[i], codes);
    for (size_t j = 0; j < 8; ++j) {
      const T expected = [&] {
        if constexpr (std::is_same_v<T, BF16>) return to_bf16(values[i + j]);
        if constexpr (std::is_same_v<T, F8E4M3>) return to_f8_e4m3(values[i + j]);
        if constexpr (std::is_same_v<T, F8E5M2>) return to_f8_e5m2(values[i + j]);
      }();
      if (codes[j].bits != expected.bits && ++wrong < 5)
        ADD_FAILURE() << values[i + j] << ": " << +codes[j].bits << ", expected " << +expected.bits;
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(Avx2Math, EncodesE4M3) { expect_encodes_as_scalar<F8E4M3>(); }
TEST_F(Avx2Math, EncodesE5M2) { expect_encodes_as_scalar<F8E5M2>(); }
TEST_F(Avx2Math, EncodesBf16) { expect_encodes_as_scalar<BF16>(); }

template <class T, class Decode>
void expect_decodes_all(uint32_t num_codes, Decode decode) {
  for (uint32_t code = 0; code < num_codes; ++code) {
    T codes[8];
    for (uint32_t j = 0; j < 8; ++j) codes[j].bits = static_cast<decltype(T::bits)>((code + j * 31) % num_codes);
    float values[8];
    decode(codes, values);
    for (int j = 0; j < 8; ++j) {
      const float expected = to_f32(codes[j]);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(values[j])) << "code " << +codes[j].bits;
      } else {
        ASSERT_EQ(std::bit_cast<uint32_t>(values[j]), std::bit_cast<uint32_t>(expected)) << "code " << +codes[j].bits;
      }
    }
  }
}

TEST_F(Avx2Math, DecodesEveryCode) {
  expect_decodes_all<F8E4M3>(256, decode8<F8E4M3>);
  expect_decodes_all<F8E5M2>(256, decode8<F8E5M2>);
  expect_decodes_all<BF16>(65536, decode8<BF16>);
  expect_decodes_all<F16>(65536, decode8<F16>);
}

TEST_F(Avx2Math, LoadsQuadsOfAllCodes) {
  for (int first = 0; first < 256; first += 32) {
    F8E4M3 codes[32];
    for (int i = 0; i < 32; ++i) codes[i].bits = static_cast<uint8_t>(first + i);
    float values[32];
    load32(codes, values);
    for (int i = 0; i < 32; ++i) {
      if (std::isnan(to_f32(codes[i]))) continue;  // refused at load
      EXPECT_EQ(values[i], to_f32(codes[i])) << first + i;
    }
  }
}

TEST_F(Avx2Math, ExpIsWithinTwoUlp) {
  double worst = 0;
  for (float x = -103.9f; x < 88.7f; x += 8 * 1.9e-4f) {
    float in[8], out[8];
    for (int j = 0; j < 8; ++j) in[j] = x + static_cast<float>(j) * 1.9e-4f;
    exp8(in, out);
    for (int j = 0; j < 8; ++j) {
      const double expected = std::exp(static_cast<double>(in[j]));
      const double ulp = std::max(std::ldexp(1.0, std::ilogb(expected) - 23), 0x1p-149);
      worst = std::max(worst, std::abs(out[j] - expected) / ulp);
    }
  }
  EXPECT_LE(worst, 2.0);
}

TEST_F(Avx2Math, ExpOfSpecialValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float in[8] = {0.0f, -0.0f, -kInfinity, kInfinity, std::nanf(""), 1000.0f, -1000.0f, 88.8f};
  float out[8];
  exp8(in, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], 1.0f);
  EXPECT_EQ(out[2], 0.0f);
  EXPECT_EQ(out[3], kInfinity);
  EXPECT_TRUE(std::isnan(out[4]));
  EXPECT_EQ(out[5], kInfinity);
  EXPECT_EQ(out[6], 0.0f);
  EXPECT_EQ(out[7], kInfinity);
}

TEST_F(Avx2Math, LanesAddInTheStatedTree) {
  const float x[8] = {1e8f, 1.0f, -1e8f, 3.0f, 0.1f, 7e7f, -7e7f, 0.25f};
  EXPECT_EQ(sum8(x), ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])));
  EXPECT_EQ(max8(x), 1e8f);
}

}  // namespace
}  // namespace octet

#endif
