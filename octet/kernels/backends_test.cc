#include "octet/kernels/backends.h"

#include <gtest/gtest.h>

namespace octet {
namespace {

Backend cpu_backend(CpuFeatures features) {
  return Backend(kernel_table(Device{}), Launch{.features = features}, DType::kF32);
}

TEST(HasFastMatmul, FollowsTheRowsOfTheTable) {
  QuantFormat odd_block = kF8Block;
  odd_block.group_cols = 40;
  const Backend avx2 = cpu_backend(CpuFeatures{.avx2_fma = true});
  EXPECT_TRUE(has_fast_linear(avx2, plain_format(DType::kBF16), plain_format(DType::kF32), 64, 128));
  EXPECT_TRUE(has_fast_linear(avx2, kF8Channel, kF8DynamicToken, 64, 128));
  EXPECT_TRUE(has_fast_linear(avx2, kF8Tensor, kF8StaticTensor, 1, 3));
  EXPECT_TRUE(has_fast_linear(avx2, kF8Block, kF8DynamicGroup, 200, 300));
  EXPECT_TRUE(has_fast_linear(avx2, kI8Channel, kI8DynamicToken, 64, 128));
  EXPECT_TRUE(has_fast_linear(avx2, kI8Channel, plain_format(DType::kF32), 64, 128));
  EXPECT_FALSE(has_fast_linear(avx2, odd_block, kF8DynamicGroup, 256, 256));  // the reference's alone
  EXPECT_FALSE(
      has_fast_linear(cpu_backend(CpuFeatures{}), plain_format(DType::kBF16), plain_format(DType::kF32), 8, 8));
  const Backend reference(kernel_table(Device{}, KernelSelection::kReferenceOnly),
                          Launch{.features = CpuFeatures{.avx2_fma = true}}, DType::kF32);
  EXPECT_FALSE(has_fast_linear(reference, kF8Channel, kF8DynamicToken, 64, 128));
}

}  // namespace
}  // namespace octet
