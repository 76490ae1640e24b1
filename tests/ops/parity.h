// What the parity tests of every device share.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "octet/kernels/backends.h"
#include "tests/ops/case_lists.h"

namespace octet::ops_test {

// Shapes and values come from a fresh seed, printed on failure; OCTET_TEST_SEED=<number> repeats a run.
uint64_t base_seed();

inline bool is_reference(std::string_view kernel) { return kernel.starts_with("reference."); }

template <class Op>
CaseMemory::Snapshot run(const Kernel<Op>& kernel, const Op& op, CaseMemory& memory, std::byte poison,
                         const Launch& launch) {
  memory.reset(poison);
  kernel.run(op, launch);
  return memory.outputs();
}

// The reference row must take every case.
template <class Op>
const Kernel<Op>& reference_kernel(const Op& op, const Launch& launch) {
  const auto& kernels = kernel_table(Device{}, KernelSelection::kReferenceOnly).of<Op>();
  OCTET_CHECK(kernels.size() == 1 && is_reference(kernels.front().name));
  EXPECT_EQ(kernels.front().declines(op, launch), "");
  return kernels.front();
}

using AllOps =
    ::testing::Types<CombineExpertsOp, EmbeddingOp, ExpertMatmulOp, ExpertPermuteOp, ExpertSiluAndMulOp, GatherRowsOp,
                     HeadMatmulOp, LatentKvOp, MatmulOp, MoveIntsOp, PagedAttentionOp, QuantizeOp, RmsNormOp,
                     RopeAttentionOp, RopeKvOp, RopeTableOp, RouteExpertsOp, SampleOp, SiluAndMulOp>;
class OpNames {
 public:
  template <class Op>
  static std::string GetName(int) {
    return std::string(Op::kName);
  }
};

// What CPU kernels launch on. Teams of one and of two cut the work differently.
class Team {
 public:
  explicit Team(int num_threads) : threads_(num_threads), scratch_(num_threads) {}
  Launch launch() {
    return Launch{.stream = {}, .threads = &threads_, .scratch = &scratch_, .features = cpu_features()};
  }

 private:
  ThreadPool threads_;
  ThreadScratch scratch_;
};

// Sequences [begin, begin + count) of a step with one new token each; query_start: 0 to count.
RopeAttentionOp sequences_of(RopeAttentionOp op, int64_t begin, int64_t count, ConstTensor query_start);

// A row alone, in a part of the batch and in the batch: the same bits. Every kernel of the device's table that does not
// decline. For HeadMatmulOp, MatmulOp, RmsNormOp and SiluAndMulOp; PagedAttentionOp: a sequence's queries alone, in
// chunks and in a mixed batch, but of kernels that cut keys by the batch; RopeAttentionOp: sequences alone and in a
// batch, of kernels for a token a sequence. Of the deterministic kernels, which must be the same whatever the pieces,
// and of all, some of which have two ways, by the number of rows.
template <class Op>
void expect_batch_invariance(const Op& op, CaseMemory& memory, const Launch& launch, KernelSelection selection);
template <>
void expect_batch_invariance(const PagedAttentionOp& op, CaseMemory& memory, const Launch& launch,
                             KernelSelection selection);
template <>
void expect_batch_invariance(const RopeAttentionOp& op, CaseMemory& memory, const Launch& launch,
                             KernelSelection selection);

}  // namespace octet::ops_test
