// The baselines beside what the packages themselves compute (scripts/record_baselines.py), bit for bit.
#include "octet/quantizer/baseline_rounding.h"

#include <gtest/gtest.h>

#include <cstring>

#include "octet/checkpoint/safetensors.h"
#include "octet/quant/schemes.h"
#include "octet/quantizer/layer_runner.h"
#include "octet/quantizer/quantized_weight.h"

namespace octet {
namespace {

struct Recorded {
  std::string name;
  Recipe recipe;
  QuantFormat format;
};

class Baselines : public testing::TestWithParam<Recorded> {};

TEST_P(Baselines, AreWhatThePackagesCompute) {
  const SafetensorsFolder files(std::string(OCTET_SOURCE_DIR) + "/tests/golden/baselines");
  const ConstTensor stored = files.tensor("weight");
  std::vector<std::byte> copy(stored.bytes, stored.bytes + stored.num_bytes());  // aligned
  const ConstTensor weight(copy.data(), stored.dtype, stored.shape);
  const ConstTensor codes = files.tensor(GetParam().name + ".codes"), scale = files.tensor(GetParam().name + ".scale");
  ThreadPool threads(2);
  QuantizedWeight out(GetParam().format, weight.dim(0), weight.dim(1));
  round_as_baseline(GetParam().recipe, weight, nullptr, out.tensor, threads);
  ASSERT_EQ(codes.dtype, GetParam().format.dtype);
  ASSERT_EQ(static_cast<int64_t>(out.scales.size()), scale.num_elements());
  std::vector<float> scales(out.scales.size());
  std::memcpy(scales.data(), scale.bytes, scales.size() * sizeof(float));
  EXPECT_EQ(out.scales, scales);
  int num_different = 0;
  for (size_t i = 0; i < out.codes.size(); ++i) num_different += out.codes[i] != codes.bytes[i];
  EXPECT_EQ(num_different, 0);
}

INSTANTIATE_TEST_SUITE_P(Recorded, Baselines,
                         testing::Values(Recorded{"autofp8", Recipe::kBaselineAutoFp8, kF8Tensor},
                                         Recorded{"llmc_fp8", Recipe::kBaselineLlmc, kF8Tensor},
                                         Recorded{"llmc_fp8_channel", Recipe::kBaselineLlmc, kF8Channel},
                                         Recorded{"llmc_fp8_block", Recipe::kBaselineLlmc, kF8Block},
                                         Recorded{"llmc_int8", Recipe::kBaselineLlmc, kI8Channel}),
                         [](const auto& test) { return test.param.name; });

// With independent inputs GPTQ rounds to the nearest; a second rounding of the rounded changes nothing that BF16 can
// say.
TEST(BaselineGptq, OfIndependentChannelsIsTheNearest) {
  constexpr int64_t kSize = 32;
  ThreadPool threads(1);
  const CpuBackend backend(threads);
  std::vector<float> x(kSize * kSize, 0.0f);
  for (size_t k = 0; k < kSize; ++k) x[k * kSize + k] = 1.0f + static_cast<float>(k);
  Hessian hessian(kSize);
  hessian.add(*backend, ConstTensor(std::as_bytes(std::span(x)).data(), DType::kF32, Shape{kSize, kSize}));
  const HessianFactor factor(hessian, "test", threads, HessianFactor::Damping::kByMean);
  std::vector<BF16> values;
  for (int64_t i = 0; i < kSize * kSize; ++i)
    values.push_back(to_bf16(static_cast<float>((i * 37) % 101 - 50) / 64.0f));
  const ConstTensor weight(std::as_bytes(std::span(values)).data(), DType::kBF16, Shape{kSize, kSize});
  QuantizedWeight nearest(kF8Channel, kSize, kSize), found(kF8Channel, kSize, kSize);
  round_as_baseline(Recipe::kBaselineLlmc, weight, nullptr, nearest.tensor, threads);
  round_as_baseline(Recipe::kBaselineLlmcGptq, weight, &factor, found.tensor, threads);
  EXPECT_EQ(found.scales, nearest.scales);
  int num_different = 0;  // BF16 quotients fall on the other side of a tie now and then; GPTQ divides in F32
  for (size_t i = 0; i < found.codes.size(); ++i) num_different += found.codes[i] != nearest.codes[i];
  EXPECT_LT(num_different, kSize * kSize / 20);
}

TEST(Baselines, RefuseWhatTheyAreNot) {
  EXPECT_NE(baseline_declines(Recipe::kBaselineAutoFp8, kF8Channel, DType::kBF16), "");
  EXPECT_NE(baseline_declines(Recipe::kBaselineLlmc, kF8Channel, DType::kF32), "");
  EXPECT_EQ(baseline_declines(Recipe::kBaselineLlmc, kI8Channel, DType::kBF16), "");
}

}  // namespace
}  // namespace octet
