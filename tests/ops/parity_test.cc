// Every kernel of the CPU's table on every case that it does not decline, against the reference kernel.
#include "tests/ops/parity.h"

namespace octet::ops_test {
namespace {

template <class Op>
class ParityTest : public ::testing::Test {};
TYPED_TEST_SUITE(ParityTest, AllOps, OpNames);

TYPED_TEST(ParityTest, EveryKernelAgreesWithTheReference) {
  Team one(1);
  Team two(2);
  for (const Case<TypeParam>& test_case : cases<TypeParam>()) {
    SCOPED_TRACE(fmt::format("case \"{}\", repeat with OCTET_TEST_SEED={}", test_case.name, base_seed()));
    CaseMemory memory(seed_of(base_seed(), test_case.name));
    const TypeParam op = test_case.make(memory);
    op.check();
    const Kernel<TypeParam>& reference = reference_kernel(op, one.launch());
    const CaseMemory::Snapshot expected = run(reference, op, memory, std::byte{0xff}, one.launch());
    const CaseMemory::Snapshot again = run(reference, op, memory, std::byte{0x7f}, two.launch());
    ASSERT_EQ(expected, again) << "the reference depends on what its outputs held, or on threads";
    ASSERT_EQ(memory.differences(expected, expected), "");
    for (const Kernel<TypeParam>& kernel : kernel_table(Device{}).of<TypeParam>()) {
      if (is_reference(kernel.name) || !kernel.declines(op, one.launch()).empty()) continue;
      SCOPED_TRACE(kernel.name);
      const CaseMemory::Snapshot found = run(kernel, op, memory, std::byte{0xff}, one.launch());
      EXPECT_EQ(memory.differences(expected, found), "");
      EXPECT_EQ(found, run(kernel, op, memory, std::byte{0x7f}, two.launch()))
          << "bits depend on threads or on what outputs held";
    }
    if (this->HasFailure()) return;
  }
}

TYPED_TEST(ParityTest, EveryKernelTakesSomeCase) {
  Team team(1);
  Launch launch = team.launch();
  launch.features = CpuFeatures{.avx2_fma = true, .avx512 = true, .avx512_vnni = true, .avx512_bf16 = true};
  const auto& kernels = kernel_table(Device{}).of<TypeParam>();
  std::vector<bool> takes(kernels.size(), false);
  for (const Case<TypeParam>& test_case : cases<TypeParam>()) {
    CaseMemory memory(seed_of(base_seed(), test_case.name));
    const TypeParam op = test_case.make(memory);
    for (size_t i = 0; i < kernels.size(); ++i) takes[i] = takes[i] || kernels[i].declines(op, launch).empty();
  }
  for (size_t i = 0; i < kernels.size(); ++i)
    EXPECT_TRUE(takes[i]) << kernels[i].name << ", OCTET_TEST_SEED=" << base_seed();
}

template <class Op>
void expect_batch_invariance_of_all_cases() {
  Team team(2);
  for (const Case<Op>& test_case : cases<Op>()) {
    SCOPED_TRACE(fmt::format("case \"{}\", repeat with OCTET_TEST_SEED={}", test_case.name, base_seed()));
    CaseMemory memory(seed_of(base_seed(), test_case.name));
    const Op op = test_case.make(memory);
    expect_batch_invariance(op, memory, team.launch(), KernelSelection::kFastest);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(BatchInvarianceTest, Matmul) { expect_batch_invariance_of_all_cases<MatmulOp>(); }
TEST(BatchInvarianceTest, RmsNorm) { expect_batch_invariance_of_all_cases<RmsNormOp>(); }
TEST(BatchInvarianceTest, SiluAndMul) { expect_batch_invariance_of_all_cases<SiluAndMulOp>(); }
TEST(BatchInvarianceTest, HeadMatmul) { expect_batch_invariance_of_all_cases<HeadMatmulOp>(); }
TEST(BatchInvarianceTest, PagedAttention) { expect_batch_invariance_of_all_cases<PagedAttentionOp>(); }

}  // namespace
}  // namespace octet::ops_test
