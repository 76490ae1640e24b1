#include "octet/quant/scheme.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "octet/quant/weight_rows.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A weight in any plain dtype, its quantised form and that form's real values.
struct Matrix {
  int64_t n, k;
  std::vector<float> values;
};

struct Quantized {
  std::vector<std::byte> bytes;
  std::vector<float> scale;
  std::vector<float> real;

  uint8_t code(int64_t i) const { return static_cast<uint8_t>(bytes[static_cast<size_t>(i)]); }
};

std::vector<std::byte> as_dtype(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bytes(dtype)));
  dispatch<DType::kF32, DType::kBF16, DType::kF16>(dtype, [&]<DType D>() {
    for (size_t i = 0; i < values.size(); ++i)
      reinterpret_cast<CType<D>*>(bytes.data())[i] = from_f32<CType<D>>(values[i]);
  });
  return bytes;
}

Quantized quantize(const QuantScheme& scheme, const Matrix& matrix, DType dtype, int num_threads,
                   std::span<const float> amax = {}) {
  ThreadPool threads(num_threads);
  const std::vector<std::byte> weight = as_dtype(matrix.values, dtype);
  const QuantFormat format = scheme.weight_format();
  const Shape shape{matrix.n, matrix.k};
  Quantized result;
  result.bytes.resize(static_cast<size_t>(shape.num_elements() * dtype_bytes(format.dtype)));
  const Shape scale_shape = format.scale_shape(matrix.n, matrix.k);
  result.scale.assign(static_cast<size_t>(scale_shape.num_elements()), kNaN);
  result.real.resize(static_cast<size_t>(shape.num_elements()));
  const QuantTensor out(Tensor(result.bytes.data(), format.dtype, shape),
                        format.quantized()
                            ? Tensor(reinterpret_cast<std::byte*>(result.scale.data()), DType::kF32, scale_shape)
                            : Tensor(),
                        format);
  scheme.quantize(ConstTensor(weight.data(), dtype, shape), out, threads, amax);
  scheme.dequantize(out, Tensor(reinterpret_cast<std::byte*>(result.real.data()), DType::kF32, shape), threads);
  return result;
}

Matrix random_matrix(int64_t n, int64_t k) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  Matrix matrix{n, k, {}};
  for (int64_t i = 0; i < n * k; ++i)
    matrix.values.push_back(normal(random) * std::exp2(static_cast<float>(i / k % 5)));
  return matrix;
}

TEST(SchemeTest, NamesAreInOrderAndFound) {
  std::vector<std::string_view> names;
  for (const QuantScheme* scheme : quant_schemes()) {
    names.push_back(scheme->name());
    EXPECT_EQ(find_scheme(scheme->name()), scheme);
    EXPECT_EQ(scheme->stored_tensors(6, 4).front().suffixes.front(), "weight");
    EXPECT_EQ(scheme->stored_tensors(6, 4).front().shapes.front(), (Shape{6, 4}));
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(find_scheme("fp4"), nullptr);
}

TEST(SchemeTest, RoundTripStaysWithinHalfAStep) {
  const Matrix matrix = random_matrix(37, 53);
  for (const QuantScheme* scheme : quant_schemes()) {
    if (!scheme->weight_format().quantized()) continue;
    const Quantized result = quantize(*scheme, matrix, DType::kF32, 2);
    for (int64_t i = 0; i < matrix.n * matrix.k; ++i) {
      const float scale = result.scale[result.scale.size() == 1 ? 0 : static_cast<size_t>(i / matrix.k)];
      const float w = matrix.values[static_cast<size_t>(i)];
      // E4M3 has 3 bits after the first, and steps of 2^-9 below 2^-6.
      const bool integers = scheme->weight_format().dtype == DType::kI8;
      const float bound = integers ? scale * 0.500001f : std::max(std::fabs(w) / 16, scale / 1024) * 1.000001f;
      ASSERT_NEAR(result.real[static_cast<size_t>(i)], w, bound) << scheme->name() << " element " << i;
    }
  }
}

TEST(SchemeTest, ScalesAreTheLargestMagnitudeOver448) {
  const Matrix matrix{2, 3, {1.0f, -7.0f, 2.0f, 0.5f, 0.25f, -0.125f}};
  const Quantized channel = quantize(*find_scheme("fp8_channel"), matrix, DType::kF32, 1);
  EXPECT_EQ(channel.scale, (std::vector<float>{7.0f / 448.0f, 0.5f / 448.0f}));
  EXPECT_EQ(channel.code(1), 0xfe);  // -448
  EXPECT_EQ(channel.code(3), 0x7e);
  EXPECT_EQ(channel.code(4), 0x76);  // 224
  const Quantized tensor = quantize(*find_scheme("fp8_tensor"), matrix, DType::kF32, 1);
  EXPECT_EQ(tensor.scale, (std::vector<float>{7.0f / 448.0f}));
  EXPECT_EQ(tensor.code(3), 0x60);  // 32
  const Quantized part = quantize(*find_scheme("fp8_tensor"), matrix, DType::kF32, 1, std::vector<float>{14.0f});
  EXPECT_EQ(part.scale, (std::vector<float>{14.0f / 448.0f}));
  EXPECT_EQ(part.code(1), 0xf6);  // -224: another rank holds the largest
}

// Two by two blocks, those at the edges partial.
TEST(SchemeTest, BlocksHaveScalesOfTheirOwn) {
  Matrix matrix{130, 129, std::vector<float>(130 * 129, 1.0f)};
  matrix.values[0] = -7.0f;
  matrix.values[128] = 3.5f;
  matrix.values[129 * 129 + 128] = 14.0f;
  const Quantized block = quantize(*find_scheme("fp8_block"), matrix, DType::kF32, 2);
  EXPECT_EQ(block.scale, (std::vector<float>{7.0f / 448, 3.5f / 448, 1.0f / 448, 14.0f / 448}));
  EXPECT_EQ(block.code(0), 0xfe);
  EXPECT_EQ(block.code(1), 0x68);  // 64
  EXPECT_EQ(block.code(129 * 129 + 128), 0x7e);
  const Quantized zeros = quantize(*find_scheme("fp8_block"), Matrix{1, 2, {0, 0}}, DType::kF32, 1);
  EXPECT_EQ(zeros.scale[0], 1e-4f / 448);
}

TEST(SchemeTest, IntegersRoundToNearestEven) {
  const Matrix matrix{2, 4, {127.0f, 2.5f, -3.5f, -127.0f, 0.0f, 0.0f, 0.0f, 0.0f}};
  const Quantized result = quantize(*find_scheme("int8_channel"), matrix, DType::kF32, 1);
  EXPECT_EQ(result.scale, (std::vector<float>{1.0f, 1e-12f / 127}));
  EXPECT_EQ(result.real, (std::vector<float>{127, 2, -4, -127, 0, 0, 0, 0}));
}

TEST(SchemeTest, RowsOfZerosStayZeros) {
  Matrix matrix = random_matrix(3, 8);
  std::fill_n(matrix.values.begin() + 8, 8, 0.0f);
  matrix.values[9] = -0.0f;
  const Quantized result = quantize(*find_scheme("fp8_channel"), matrix, DType::kBF16, 1);
  EXPECT_EQ(result.scale[1], 1e-12f / 448.0f);
  for (size_t i = 8; i < 16; ++i) EXPECT_EQ(result.real[i], 0.0f);
  const Quantized zeros = quantize(*find_scheme("fp8_tensor"), Matrix{2, 2, {0, 0, 0, 0}}, DType::kF16, 1);
  EXPECT_EQ(zeros.scale[0], 1e-12f / 448.0f);
  EXPECT_EQ(zeros.real, std::vector<float>(4, 0.0f));
}

TEST(SchemeTest, NaNStaysWhereItIs) {
  Matrix matrix{2, 4, {1, 2, kNaN, 448, 1, 1, 1, 1}};
  for (const std::string_view name : {"fp8_channel", "fp8_tensor"}) {
    const Quantized result = quantize(*find_scheme(name), matrix, DType::kF32, 1);
    EXPECT_EQ(result.scale[0], 1.0f) << name;
    EXPECT_EQ(result.code(2), 0x7f);
    EXPECT_TRUE(std::isnan(result.real[2]));
    EXPECT_EQ(std::count_if(result.real.begin(), result.real.end(), [](float x) { return std::isnan(x); }), 1);
  }
}

TEST(SchemeTest, ThreadsDoNotChangeBits) {
  const Matrix matrix = random_matrix(101, 17);
  for (const QuantScheme* scheme : quant_schemes()) {
    const Quantized one = quantize(*scheme, matrix, DType::kBF16, 1);
    const Quantized three = quantize(*scheme, matrix, DType::kBF16, 3);
    EXPECT_EQ(one.bytes, three.bytes) << scheme->name();
    EXPECT_EQ(one.real, three.real) << scheme->name();
  }
}

TEST(SchemeTest, PlainSchemesConvertOnce) {
  const Matrix matrix{1, 3, {1.0f, 0.333333343f, -65520.0f}};
  EXPECT_EQ(quantize(*find_scheme("f32"), matrix, DType::kF32, 1).real, matrix.values);
  EXPECT_EQ(quantize(*find_scheme("bf16"), matrix, DType::kF32, 1).real,
            (std::vector<float>{1.0f, 0.333984375f, -65536.0f}));
  const Quantized f16 = quantize(*find_scheme("f16"), matrix, DType::kF32, 1);
  EXPECT_EQ(f16.real[1], 0.333251953125f);
  EXPECT_EQ(f16.real[2], -std::numeric_limits<float>::infinity());
}

// Every float in steps of 2^-12 of its magnitude and its neighbours, both signs, infinities and NaN.
TEST(SchemeTest, TheQuickConversionGivesTheCodesOfTheReference) {
  int64_t num_wrong = 0;
  for (uint32_t high = 0; high < (1u << 20); ++high) {
    for (const uint32_t low : {0u, 1u, 0x7ffu, 0x800u, 0x801u, 0xfffu}) {
      const auto value = std::bit_cast<float>(high << 12 | low);
      num_wrong += masked_f8_e4m3(value).bits != to_f8_e4m3(value).bits;
    }
  }
  EXPECT_EQ(num_wrong, 0);
}

TEST(SchemeTest, TheLargestMagnitudeLeavesNaNsOut) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(amax_of(std::vector<float>{1.0f, nan, -3.5f, -nan, 2.0f}), 3.5f);
  EXPECT_EQ(amax_of(std::vector<float>{nan, -0.0f}), 0.0f);
  EXPECT_EQ(amax_of(std::vector<float>{1.0f, -infinity}), infinity);
}

TEST(SchemeTest, DequantizesBlocksAndGroups) {
  const float one[6] = {1, 1, 1, 1, 1, 1};
  const float scales[4] = {2, 3, 4, 5};
  float out[6] = {};
  const QuantFormat block{.dtype = DType::kF32, .granularity = Granularity::kBlock, .group_rows = 1, .group_cols = 2};
  const ConstQuantTensor matrix(ConstTensor(reinterpret_cast<const std::byte*>(one), DType::kF32, Shape{2, 3}),
                                ConstTensor(reinterpret_cast<const std::byte*>(scales), DType::kF32, Shape{2, 2}),
                                block);
  ThreadPool threads(2);
  find_scheme("f32")->dequantize(matrix, Tensor(reinterpret_cast<std::byte*>(out), DType::kF32, Shape{2, 3}), threads);
  const float expected[6] = {2, 2, 3, 4, 4, 5};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(out[i], expected[i]) << i;
}

}  // namespace
}  // namespace octet
