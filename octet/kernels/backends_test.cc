#include "octet/kernels/backends.h"

#include <gtest/gtest.h>

namespace octet {
namespace {

Backend cpu_backend(CpuFeatures features) {
  return Backend(kernel_table(Device{}), Launch{.features = features}, DType::kF32);
}

TEST(HasFastMatmul, FollowsTheRowsOfTheTable) {
  const QuantFormat block{
      .dtype = DType::kF8E4M3, .granularity = Granularity::kBlock, .group_rows = 128, .group_cols = 128};
  const Backend avx2 = cpu_backend(CpuFeatures{.avx2_fma = true});
  EXPECT_TRUE(has_fast_matmul(avx2, plain_format(DType::kBF16), plain_format(DType::kF32), 64, 128));
  EXPECT_TRUE(has_fast_matmul(avx2, kF8Channel, kF8DynamicToken, 64, 128));
  EXPECT_TRUE(has_fast_matmul(avx2, kF8Tensor, kF8StaticTensor, 1, 3));
  EXPECT_FALSE(has_fast_matmul(avx2, block, kF8DynamicToken, 256, 256));  // the reference's alone
  EXPECT_FALSE(
      has_fast_matmul(cpu_backend(CpuFeatures{}), plain_format(DType::kBF16), plain_format(DType::kF32), 8, 8));
  const Backend reference(kernel_table(Device{}, KernelSelection::kReferenceOnly),
                          Launch{.features = CpuFeatures{.avx2_fma = true}}, DType::kF32);
  EXPECT_FALSE(has_fast_matmul(reference, kF8Channel, kF8DynamicToken, 64, 128));
}

}  // namespace
}  // namespace octet
