// The reference kernels in formats with groups, blocks, zero points and integers, on numbers worked out by hand from
// the equations of the formats' makers: DeepSeek (groups, blocks), FBGEMM (amax_cap), compressed-tensors and vLLM (i8).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "octet/kernels/backends.h"
#include "octet/tensor/float8.h"

namespace octet {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
constexpr QuantFormat kAsymmetricToken{
    .dtype = DType::kI8, .granularity = Granularity::kToken, .dynamic = true, .zero_point = true};
constexpr QuantFormat kAsymmetricTensor{.dtype = DType::kI8, .granularity = Granularity::kTensor, .zero_point = true};

template <class Op>
void run_reference(const Op& op) {
  Backend(kernel_table(Device{}, KernelSelection::kReferenceOnly), Launch{}, DType::kF32)(op);
}

template <class T>
Tensor view(std::vector<T>& values, DType dtype, Shape shape) {
  OCTET_CHECK(static_cast<int64_t>(values.size()) == shape.num_elements());
  return Tensor(reinterpret_cast<std::byte*>(values.data()), dtype, shape);
}

// A quantised matrix with its memory.
struct Quantized {
  std::vector<uint8_t> codes;
  std::vector<float> scale;
  std::vector<int32_t> zero_point;
  Shape shape;
  QuantFormat format;

  Quantized(const QuantFormat& format_, Shape shape_)
      : codes(static_cast<size_t>(shape_.num_elements())), shape(shape_), format(format_) {
    scale.resize(static_cast<size_t>(scale_shape().num_elements()));
    if (format.zero_point) zero_point.resize(scale.size());
  }
  Shape scale_shape() const { return format.scale_shape(shape[0], shape[1]); }
  QuantTensor tensor() {
    QuantTensor made(view(codes, format.dtype, shape), view(scale, DType::kF32, scale_shape()), format);
    if (format.zero_point) made.zero_point = view(zero_point, DType::kI32, scale_shape());
    return made;
  }
  // The codes as numbers.
  std::vector<float> numbers() const {
    std::vector<float> list;
    for (const uint8_t code : codes) {
      list.push_back(format.dtype == DType::kI8 ? static_cast<float>(static_cast<int8_t>(code)) : to_f32(F8E4M3{code}));
    }
    return list;
  }
  void set(const std::vector<float>& numbers) {
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = format.dtype == DType::kI8 ? static_cast<uint8_t>(static_cast<int8_t>(numbers[i]))
                                            : to_f8_e4m3(numbers[i]).bits;
    }
  }
};

void quantize(std::vector<float> x, Quantized& out) {
  run_reference(QuantizeOp{.out = out.tensor(), .x = view(x, DType::kF32, out.shape)});
}

using Numbers = std::vector<float>;

TEST(Formats, GroupsHaveAScaleEach) {
  QuantFormat format = kF8DynamicGroup;
  format.group_cols = 32;
  Quantized out(format, Shape{1, 70});  // groups of 32, 32 and 6
  Numbers x(70, 0.0f);
  x[0] = 896.0f, x[31] = -3.0f;  // scale 2
  x[69] = 56.0f, x[64] = 1.0f;   // scale 1 / 8
  quantize(x, out);
  EXPECT_EQ(out.scale, (Numbers{2.0f, 1e-10f / 448.0f, 0.125f}));
  Numbers expected(70, 0.0f);
  expected[0] = 448.0f, expected[31] = -1.5f, expected[69] = 448.0f, expected[64] = 8.0f;
  EXPECT_EQ(out.numbers(), expected);
}

TEST(Formats, PowersOfTwoAreRoundedUp) {
  QuantFormat format = kF8DynamicGroup;
  format.group_cols = 32;
  format.power_of_two = true;
  Quantized out(format, Shape{1, 128});
  Numbers x(128, 0.0f);
  x[0] = 448.0f;                            // 1 stays 1
  x[32] = std::nextafter(448.0f, 1000.0f);  // a bit more: 2
  x[64] = 168.0f;                           // 0.375: 0.5
  quantize(x, out);
  EXPECT_EQ(out.scale, (Numbers{1.0f, 2.0f, 0.5f, 0x1p-33f}));  // 2^-34 < 1e-10 < 2^-33
  EXPECT_EQ(out.numbers()[0], 448.0f);
  EXPECT_EQ(out.numbers()[32], 224.0f);
  EXPECT_EQ(out.numbers()[64], 320.0f);  // 336 lies between 320, which is even, and 352
}

TEST(Formats, ACapBoundsTheScale) {
  QuantFormat format = kF8DynamicToken;
  format.amax_cap = 896.0f;
  Quantized out(format, Shape{3, 2});
  quantize({8960.0f, 4.0f, -448.0f, 1.0f, 0.0f, 0.0f}, out);
  EXPECT_EQ(out.scale, (Numbers{2.0f, 1.0f, 1.0f / (448.0f * 512.0f)}));
  EXPECT_EQ(out.numbers(), (Numbers{448.0f, 2.0f, -448.0f, 1.0f, 0.0f, 0.0f}));
}

TEST(Formats, I8PerToken) {
  Quantized out(kI8DynamicToken, Shape{4, 5});
  quantize({127.0f,  -63.5f, 0.5f,  1.5f,       -2.5f,  // scale 1: halves to even
            -254.0f, 2.0f,   3.0f,  5.0f,       0.0f,   // scale 2
            0.0f,    0.0f,   -0.0f, 0.0f,       0.0f,   //
            1.0f,    kNan,   2.0f,  -kInfinity, 0.0f},  // not to be trusted
           out);
  EXPECT_EQ((Numbers{out.scale.begin(), out.scale.begin() + 3}), (Numbers{1.0f, 2.0f, 0x1p-126f}));
  EXPECT_EQ(out.scale[3], kInfinity);
  EXPECT_EQ(out.numbers(), (Numbers{127, -64, 0, 2, -2, -127, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(Formats, I8PerTokenWithZeroPoints) {
  Quantized out(kAsymmetricToken, Shape{5, 4});
  quantize({-64.0f,  191.0f,    0.5f,   1.5f,    // 255 steps of 1 from -64 on: zero is -128 + 64
            51.0f,   255.0f,    100.0f, 100.0f,  // zero belongs to the range
            -510.0f, -2.0f,     0.0f,   -1.0f,   // steps of 2, zero at the top
            0.0f,    0.0f,      0.0f,   0.0f,    //
            0.0f,    kInfinity, 1.0f,   2.0f},
           out);
  EXPECT_EQ((Numbers{out.scale.begin(), out.scale.begin() + 4}), (Numbers{1.0f, 1.0f, 2.0f, 0x1p-126f}));
  EXPECT_EQ(out.scale[4], kInfinity);
  EXPECT_EQ(out.zero_point, (std::vector<int32_t>{-64, -128, 127, -128, 0}));
  EXPECT_EQ(out.numbers(), (Numbers{-128, 127,  -64,  -62,  -77, 127, -28, -28, -128, 126, 127, 127,  //
                                    -128, -128, -128, -128, 0,   0,   0,   0}));
}

TEST(Formats, I8OfAGivenScale) {
  Quantized symmetric(kI8StaticTensor, Shape{1, 6}), asymmetric(kAsymmetricTensor, Shape{1, 6});
  symmetric.scale = asymmetric.scale = {0.5f};
  asymmetric.zero_point = {3};
  const Numbers x = {1.0f, 1000.0f, -kInfinity, kNan, -0.25f, 0.75f};
  quantize(x, symmetric);
  quantize(x, asymmetric);
  EXPECT_EQ(symmetric.numbers(), (Numbers{2, 127, -128, 0, 0, 2}));
  EXPECT_EQ(asymmetric.numbers(), (Numbers{5, 127, -128, 3, 3, 5}));
}

Numbers multiply(Quantized& x, Quantized& weight, Numbers bias = {}) {
  Numbers out(static_cast<size_t>(x.shape[0] * weight.shape[0]));
  run_reference(MatmulOp{.out = view(out, DType::kF32, Shape{x.shape[0], weight.shape[0]}),
                         .x = x.tensor(),
                         .weight = weight.tensor(),
                         .bias = bias.empty() ? Tensor() : view(bias, DType::kF32, Shape{weight.shape[0]})});
  return out;
}

TEST(Formats, ZeroPointsAreTakenOffBeforeTheProduct) {
  Quantized x(kAsymmetricToken, Shape{2, 3}), weight(kI8Channel, Shape{2, 3});
  x.set({10, -3, 7, -128, 127, 0});
  x.scale = {0.5f, 2.0f};
  x.zero_point = {2, -128};
  weight.set({1, -2, 3, 0, 1, 127});
  weight.scale = {0.25f, 1.0f};
  // Less the zero points: 8 -5 5 | 0 255 128. By the weights: 33, 630 | -126, 16511.
  EXPECT_EQ(multiply(x, weight, {1.0f, 0.0f}), (Numbers{5.125f, 315.0f, -62.0f, 33022.0f}));
}

// What a row-parallel linear does: every rank finds the scale of its columns, all take the largest.
TEST(Formats, TheLargestScaleOfTheRanksIsTheWholeRows) {
  const std::vector<std::pair<Numbers, Numbers>> rows = {{{1.0f, -3.0f}, {6.35f, 0.1f}}, {{0.5f, kNan}, {-2.0f, 1.0f}}};
  for (const QuantFormat& format : {kF8DynamicToken, kI8DynamicToken}) {
    for (const auto& [left, right] : rows) {
      Quantized whole(format, Shape{1, 4}), a(format, Shape{1, 2}), b(format, Shape{1, 2});
      quantize({left[0], left[1], right[0], right[1]}, whole);
      quantize(left, a);
      quantize(right, b);
      a.scale[0] = b.scale[0] = std::max(a.scale[0], b.scale[0]);
      a.format.dynamic = b.format.dynamic = false;
      quantize(left, a);
      quantize(right, b);
      EXPECT_EQ(whole.scale, a.scale) << format.to_string();
      std::vector<uint8_t> codes = a.codes;
      codes.insert(codes.end(), b.codes.begin(), b.codes.end());
      EXPECT_EQ(whole.codes, codes) << format.to_string();
    }
  }
}

TEST(Formats, ATokenWithNanGivesNan) {
  for (const QuantFormat& format : {kI8DynamicToken, kAsymmetricToken}) {
    Quantized x(format, Shape{2, 2}), weight(kI8Channel, Shape{1, 2});
    quantize({1.0f, kNan, 1.0f, 1.0f}, x);
    weight.set({1, 2});
    weight.scale = {1.0f};
    const Numbers out = multiply(x, weight);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_NEAR(out[1], 3.0f, 1e-5f);
  }
}

TEST(Formats, BlocksAndGroupsAreScaledBeforeTheSum) {
  QuantFormat groups = kF8DynamicGroup, blocks = kF8Block;
  groups.group_cols = blocks.group_cols = blocks.group_rows = 2;
  Quantized x(groups, Shape{1, 3}), weight(blocks, Shape{3, 3});
  x.set({2, -4, 8});
  x.scale = {0.5f, 4.0f};
  weight.set({1, 2, 3, -1, 0.5f, 1, 16, 8, 0.25f});
  weight.scale = {1.0f, 10.0f,  // of rows 0 and 1: columns 0 and 1, column 2
                  0.5f, 2.0f};  // of row 2
  // x = 1 -2 32; weight = 1 2 30 | -1 0.5 10 | 8 4 0.5.
  EXPECT_EQ(multiply(x, weight), (Numbers{957.0f, 318.0f, 16.0f}));
}

TEST(Formats, OpsRefuseWhatNoFormatIs) {
  QuantFormat odd_group = kF8DynamicGroup;
  odd_group.group_cols = 48;
  Quantized groups_of_48(odd_group, Shape{1, 96}), weight_of_tokens(kI8DynamicToken, Shape{1, 96});
  EXPECT_THROW(quantize(Numbers(96), groups_of_48), Error);
  Quantized x(kI8DynamicToken, Shape{1, 96});
  EXPECT_THROW(multiply(x, weight_of_tokens), Error);
}

}  // namespace
}  // namespace octet
