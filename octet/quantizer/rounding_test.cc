// Scale search and GPTQ against rounding to the nearest, on inputs with correlated channels; errors are computed here
// in double from their definitions.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "octet/base/error.h"
#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/gptq.h"
#include "octet/quantizer/layer_runner.h"
#include "octet/quantizer/scale_search.h"

namespace octet {
namespace {

constexpr int64_t kN = 40, kK = 160, kTokens = 2000;

float gaussian(uint64_t& state) {
  double sum = 0.0;
  for (int i = 0; i < 12; ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    sum += static_cast<double>(state >> 40) / static_cast<double>(1 << 24);
  }
  return static_cast<float>(sum - 6.0);
}

struct Matrix {
  int64_t rows, columns;
  std::vector<float> values;
  Matrix(int64_t rows_, int64_t columns_)
      : rows(rows_), columns(columns_), values(static_cast<size_t>(rows_ * columns_)) {}
  float& at(int64_t i, int64_t j) { return values[static_cast<size_t>(i * columns + j)]; }
  float at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * columns + j)]; }
  ConstTensor tensor() const {
    return {reinterpret_cast<const std::byte*>(values.data()), DType::kF32, Shape{rows, columns}};
  }
};

struct Quantised {
  std::vector<std::byte> codes;
  std::vector<float> scales;
  QuantTensor tensor;
  Quantised(const QuantFormat& format, int64_t n, int64_t k)
      : codes(static_cast<size_t>(n * k)), scales(static_cast<size_t>(format.scale_shape(n, k).num_elements())) {
    tensor =
        QuantTensor(Tensor(codes.data(), format.dtype, Shape{n, k}),
                    Tensor(reinterpret_cast<std::byte*>(scales.data()), DType::kF32, format.scale_shape(n, k)), format);
  }
};

class Rounding : public testing::TestWithParam<const QuantScheme*> {
 protected:
  // Inputs are a few strong directions and noise, one channel large, one never seen.
  Rounding() : weight_(kN, kK), x_(kTokens, kK) {
    uint64_t state = 7;
    for (float& value : weight_.values) value = 0.02f * gaussian(state);
    Matrix mix(8, kK);
    for (float& value : mix.values) value = gaussian(state);
    for (int64_t t = 0; t < kTokens; ++t) {
      float strengths[8];
      for (int d = 0; d < 8; ++d) strengths[d] = gaussian(state) / static_cast<float>(1 + d);
      for (int64_t k = 0; k < kK; ++k) {
        float value = 0.2f * gaussian(state);
        for (int d = 0; d < 8; ++d) value += strengths[d] * mix.at(d, k);
        x_.at(t, k) = k == 3 ? 0.0f : (k == 5 ? 30.0f * value : value);
      }
    }
  }

  Quantised nearest(std::span<const float> amax = {}) {
    Quantised out(GetParam()->weight_format(), kN, kK);
    GetParam()->quantize(weight_.tensor(), out.tensor, threads_, amax);
    return out;
  }
  Matrix real(const Quantised& quantised) {
    Matrix matrix(kN, kK);
    GetParam()->dequantize(quantised.tensor,
                           Tensor(reinterpret_cast<std::byte*>(matrix.values.data()), DType::kF32, Shape{kN, kK}),
                           threads_);
    return matrix;
  }
  // sum over tokens and outputs of ((q - w) x)^2.
  double output_error(const Quantised& quantised) {
    const Matrix q = real(quantised);
    double sum = 0.0;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t n = 0; n < kN; ++n) {
        double y = 0.0;
        for (int64_t k = 0; k < kK; ++k) {
          y += (static_cast<double>(q.at(n, k)) - static_cast<double>(weight_.at(n, k))) *
               static_cast<double>(x_.at(t, k));
        }
        sum += y * y;
      }
    }
    return sum;
  }
  double weighted_error(const Quantised& quantised, const std::vector<double>& importance) {
    const Matrix q = real(quantised);
    double sum = 0.0;
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t k = 0; k < kK; ++k) {
        const double difference = static_cast<double>(q.at(n, k)) - static_cast<double>(weight_.at(n, k));
        sum += importance[static_cast<size_t>(k)] * difference * difference;
      }
    }
    return sum;
  }
  std::vector<double> importance() const {
    std::vector<double> squares(static_cast<size_t>(kK), 0.0);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t k = 0; k < kK; ++k)
        squares[static_cast<size_t>(k)] += static_cast<double>(x_.at(t, k)) * static_cast<double>(x_.at(t, k));
    }
    return squares;
  }
  Hessian hessian() {
    Hessian sums(kK);
    const CpuBackend backend(threads_);
    sums.add(*backend, x_.tensor().rows(0, kTokens / 2));
    sums.add(*backend, x_.tensor().rows(kTokens / 2, kTokens / 2));
    return sums;
  }

  ThreadPool threads_{2};
  Matrix weight_, x_;
};

TEST_P(Rounding, GptqLosesLessOfTheOutput) {
  const HessianFactor factor(hessian(), "test", threads_);
  EXPECT_EQ(factor.damping(), 0.01);
  EXPECT_EQ(factor.order().back(), 5);  // the largest first
  EXPECT_EQ(factor.order().front(), 3);
  const Quantised plain = nearest();
  Quantised better = nearest();
  round_with_hessian(weight_.tensor(), factor, better.tensor, threads_);
  EXPECT_LT(output_error(better), 0.5 * output_error(plain));
  // What is never seen stays the nearest.
  for (int64_t n = 0; n < kN; ++n)
    EXPECT_EQ(better.codes[static_cast<size_t>(n * kK + 3)], plain.codes[static_cast<size_t>(n * kK + 3)]);
  ThreadPool one(1);
  Quantised again = nearest();
  round_with_hessian(weight_.tensor(), HessianFactor(hessian(), "test", one), again.tensor, one);
  EXPECT_EQ(again.codes, better.codes);
}

TEST_P(Rounding, GptqOfIndependentChannelsIsTheNearest) {
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t k = 0; k < kK; ++k) x_.at(t, k) = t % kK == k ? 1.0f + static_cast<float>(k) : 0.0f;
  }
  const Quantised plain = nearest();
  Quantised same = nearest();
  round_with_hessian(weight_.tensor(), HessianFactor(hessian(), "test", threads_), same.tensor, threads_);
  EXPECT_EQ(same.codes, plain.codes);
}

TEST_P(Rounding, GptqOfChannelsThatAreEqual) {
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t k = 1; k < kK; k += 2) x_.at(t, k) = x_.at(t, k - 1);
  }
  const Quantised plain = nearest();
  Quantised better = nearest();
  round_with_hessian(weight_.tensor(), HessianFactor(hessian(), "test", threads_), better.tensor, threads_);
  EXPECT_LT(output_error(better), 0.5 * output_error(plain));
}

TEST_P(Rounding, SearchedScalesLoseLess) {
  const std::vector<double> weights = importance();
  const ConstTensor matrix = weight_.tensor();
  const std::vector<float> amax = search_scales(std::span(&matrix, 1), GetParam()->weight_format(), weights, threads_);
  const Quantised plain = nearest(), searched = nearest(amax);
  ASSERT_EQ(amax.size(), plain.scales.size());
  EXPECT_LT(weighted_error(searched, weights), 0.999 * weighted_error(plain, weights));
  for (size_t i = 0; i < amax.size(); ++i) {
    const float ratio = searched.scales[i] / plain.scales[i];
    EXPECT_GT(ratio, 0.59f);
    EXPECT_LT(ratio, 2.0f);
  }
}

TEST_P(Rounding, ZerosKeepTheirScale) {
  std::fill(weight_.values.begin(), weight_.values.end(), 0.0f);
  const ConstTensor matrix = weight_.tensor();
  for (const float amax : search_scales(std::span(&matrix, 1), GetParam()->weight_format(), importance(), threads_))
    EXPECT_EQ(amax, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Schemes, Rounding,
                         testing::Values(&fp8_tensor_scheme(), &fp8_channel_scheme(), &fp8_block_scheme(),
                                         &int8_channel_scheme()),
                         [](const auto& test) { return std::string(test.param->name()); });

// H_jj of channels that are all but the same, and nothing else: the factor is L L^T as computed by hand.
TEST(HessianFactor, KnownTwoByTwo) {
  ThreadPool threads(1);
  const CpuBackend backend(threads);
  const float x[] = {2.0f, 1.0f, 0.0f, 1.0f};  // H = [[4, 2], [2, 2]]
  Hessian hessian(2);
  hessian.add(*backend, ConstTensor(reinterpret_cast<const std::byte*>(x), DType::kF32, Shape{2, 2}));
  EXPECT_EQ(hessian.at(1, 0), 2.0f);
  const HessianFactor factor(hessian, "test", threads);
  EXPECT_EQ(factor.order(), (std::vector<int64_t>{1, 0}));
  const double l00 = std::sqrt(2.0 * 1.01), l10 = 2.0 / l00;
  EXPECT_NEAR(factor.column(0)[0], l00, 1e-6);
  EXPECT_NEAR(factor.column(0)[1], l10, 1e-6);
  EXPECT_NEAR(factor.column(1)[1], std::sqrt(4.0 * 1.01 - l10 * l10), 1e-6);
}

}  // namespace
}  // namespace octet
