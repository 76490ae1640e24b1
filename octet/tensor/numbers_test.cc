// Conversions against what ml_dtypes and numpy compute: tests/golden/numbers/numbers.txt, made by
// scripts/record_numbers.py. The inputs are made here by that script's rules; results are compared by fingerprints of
// 4096 of them.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>

#include "octet/base/file.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr size_t kChunk = 4096;
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
constexpr uint64_t kNumRandom = 1 << 20;

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

const std::map<std::string, std::vector<uint64_t>>& golden() {
  static const auto* lines = [] {
    auto* result = new std::map<std::string, std::vector<uint64_t>>;
    std::istringstream file(read_file(OCTET_SOURCE_DIR "/tests/golden/numbers/numbers.txt", 1 << 20));
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string name;
      words >> name >> std::hex;
      for (uint64_t value; words >> value;) (*result)[name].push_back(value);
    }
    return result;
  }();
  return *lines;
}

// NaNs by their sign alone; that they are quiet is checked apart.
uint32_t canonical(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::isnan(value) ? (bits & 0x80000000u) | 0x7fc00000u : bits;
}
uint32_t canonical(BF16 value) {
  return (value.bits & 0x7fffu) > 0x7f80u ? (value.bits & 0x8000u) | 0x7fc0u : value.bits;
}
uint32_t canonical(F16 value) {
  return (value.bits & 0x7fffu) > 0x7c00u ? (value.bits & 0x8000u) | 0x7e00u : value.bits;
}
uint32_t canonical(F8E4M3 value) { return value.bits; }
uint32_t canonical(F8E5M2 value) { return value.bits; }

void expect_golden(const std::string& name, const std::vector<uint32_t>& bits) {
  ASSERT_TRUE(golden().contains(name)) << name;
  const std::vector<uint64_t>& expected = golden().at(name);
  ASSERT_EQ(expected.size(), (bits.size() + kChunk - 1) / kChunk) << name;
  for (size_t chunk = 0; chunk < expected.size(); ++chunk) {
    uint64_t sum = 0;
    const size_t begin = chunk * kChunk;
    for (size_t i = begin; i < std::min(bits.size(), begin + kChunk); ++i)
      sum += mix(bits[i] ^ (i - begin + 1) * kGolden);
    EXPECT_EQ(sum, expected[chunk]) << name << ": inputs " << begin << " to " << begin + kChunk - 1;
  }
}

template <class T>
void expect_conversions(const std::string& name, const std::vector<float>& inputs) {
  std::vector<uint32_t> bits;
  for (const float input : inputs) bits.push_back(canonical(from_f32<T>(input)));
  expect_golden(name, bits);
}

template <class T>
std::vector<float> all_16_bit_values() {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 65536; ++bits) values.push_back(to_f32(T{static_cast<uint16_t>(bits)}));
  return values;
}

std::vector<float> random_values() {
  std::vector<float> values;
  for (uint64_t i = 1; i <= kNumRandom; ++i)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(mix(i * kGolden) >> 32)));
  return values;
}

// The values halfway between neighbours of a format, and their F32 neighbours.
std::vector<float> midpoints(int mantissa, uint32_t first_exponent, uint32_t last_exponent) {
  std::vector<uint32_t> middle;
  const double step = std::ldexp(1.0, static_cast<int>(first_exponent) - 127 - mantissa);
  for (uint32_t i = 0; i < 1u << mantissa; ++i)
    middle.push_back(std::bit_cast<uint32_t>(static_cast<float>((i + 0.5) * step)));
  for (uint32_t exponent = first_exponent; exponent <= std::min(last_exponent + 1, 254u); ++exponent) {
    for (uint32_t i = 0; i < 1u << mantissa; ++i)
      middle.push_back(exponent << 23 | i << (23 - mantissa) | 1u << (22 - mantissa));
  }
  std::vector<float> values;
  for (const uint32_t sign : {0u, 0x80000000u}) {
    for (const uint32_t bits : middle) {
      for (const uint32_t neighbour : {bits - 1, bits, bits + 1})
        values.push_back(std::bit_cast<float>(neighbour | sign));
    }
  }
  return values;
}

template <class T>
void expect_codes(const std::string& name) {
  ASSERT_EQ(golden().at(name).size(), 256u);
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = to_f32(T{static_cast<uint8_t>(code)});
    EXPECT_EQ(canonical(value), golden().at(name)[code]) << name << " " << code;
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(from_f32<T>(value).bits, code) << name << ": there and back";
  }
}

TEST(NumbersTest, EveryFp8Code) {
  expect_codes<F8E4M3>("f8_e4m3_codes");
  expect_codes<F8E5M2>("f8_e5m2_codes");
}

TEST(NumbersTest, EveryBf16AndF16ToF32) {
  const auto bits_of = [](const std::vector<float>& values) {
    std::vector<uint32_t> bits;
    for (const float value : values) bits.push_back(canonical(value));
    return bits;
  };
  expect_golden("bf16_to_f32", bits_of(all_16_bit_values<BF16>()));
  expect_golden("f16_to_f32", bits_of(all_16_bit_values<F16>()));
}

TEST(NumbersTest, EveryBf16AndF16ToFp8) {
  expect_conversions<F8E4M3>("bf16_to_f8_e4m3", all_16_bit_values<BF16>());
  expect_conversions<F8E5M2>("bf16_to_f8_e5m2", all_16_bit_values<BF16>());
  expect_conversions<F8E4M3>("f16_to_f8_e4m3", all_16_bit_values<F16>());
  expect_conversions<F8E5M2>("f16_to_f8_e5m2", all_16_bit_values<F16>());
}

TEST(NumbersTest, RandomF32) {
  const std::vector<float> values = random_values();
  expect_conversions<F8E4M3>("random_to_f8_e4m3", values);
  expect_conversions<F8E5M2>("random_to_f8_e5m2", values);
  expect_conversions<BF16>("random_to_bf16", values);
  expect_conversions<F16>("random_to_f16", values);
}

TEST(NumbersTest, MidpointsGoToEven) {
  expect_conversions<F8E4M3>("midpoints_to_f8_e4m3", midpoints(3, 121, 135));
  expect_conversions<F8E5M2>("midpoints_to_f8_e5m2", midpoints(2, 113, 142));
  expect_conversions<BF16>("midpoints_to_bf16", midpoints(7, 1, 254));
  expect_conversions<F16>("midpoints_to_f16", midpoints(10, 113, 142));
}

TEST(NumbersTest, NaNBecomesQuietAndKeepsItsSign) {
  for (const uint32_t bits : {0x7f800001u, 0x7fa00000u, 0x7fffffffu, 0xff800001u, 0xffc00000u}) {
    const float value = std::bit_cast<float>(bits);
    const uint32_t sign = bits >> 31;
    const BF16 bf16 = to_bf16(value);
    EXPECT_TRUE(std::isnan(to_f32(bf16)) && (bf16.bits & 0x40u) && bf16.bits >> 15 == sign) << std::hex << bits;
    const F16 f16 = to_f16(value);
    EXPECT_TRUE(std::isnan(to_f32(f16)) && (f16.bits & 0x200u) && f16.bits >> 15 == sign) << std::hex << bits;
    EXPECT_EQ(to_f8_e4m3(value).bits, sign << 7 | 0x7fu);
    EXPECT_EQ(to_f8_e5m2(value).bits, sign << 7 | 0x7eu);
  }
}

}  // namespace
}  // namespace octet
