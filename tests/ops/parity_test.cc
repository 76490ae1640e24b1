// Every kernel of the CPU's table on every case that it does not decline, against the reference kernel.
//
// Shapes and values come from a fresh seed, printed on failure; OCTET_TEST_SEED=<number> repeats a run.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "octet/kernels/backends.h"
#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

uint64_t base_seed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("OCTET_TEST_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : uint64_t{std::random_device{}()};
  }();
  return seed;
}

bool is_reference(std::string_view kernel) { return kernel.starts_with("reference."); }

// What kernels launch on. Teams of one and of two cut the work differently.
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

template <class Op>
class ParityTest : public ::testing::Test {};

using AllOps = ::testing::Types<ArgmaxOp, EmbeddingOp, GatherRowsOp, MatmulOp, PagedAttentionOp, QuantizeOp, RmsNormOp,
                                RopeKvOp, RopeTableOp, SiluAndMulOp>;
class OpNames {
 public:
  template <class Op>
  static std::string GetName(int) {
    return std::string(Op::kName);
  }
};
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

// A row of a matmul alone, in a part of the batch and in the batch: the same bits.
TEST(BatchInvarianceTest, Matmul) {
  Team team(2);
  for (const Case<MatmulOp>& test_case : cases<MatmulOp>()) {
    SCOPED_TRACE(fmt::format("case \"{}\", repeat with OCTET_TEST_SEED={}", test_case.name, base_seed()));
    CaseMemory memory(seed_of(base_seed(), test_case.name));
    const MatmulOp op = test_case.make(memory);
    const int64_t num_tokens = op.out.dim(0);
    for (const Kernel<MatmulOp>& kernel : kernel_table(Device{}).of<MatmulOp>()) {
      if (!kernel.declines(op, team.launch()).empty()) continue;
      SCOPED_TRACE(kernel.name);
      const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, team.launch());
      for (const int64_t piece : {int64_t{1}, int64_t{3}, int64_t{16}}) {
        if (piece >= num_tokens) continue;
        memory.reset(std::byte{0xff});
        for (int64_t begin = 0; begin < num_tokens; begin += piece) {
          const int64_t count = std::min(piece, num_tokens - begin);
          MatmulOp part = op;
          part.out = op.out.rows(begin, count);
          part.x.data = op.x.data.rows(begin, count);
          if (op.x.format.granularity == Granularity::kToken) part.x.scale = op.x.scale.rows(begin, count);
          if (kernel.declines(part, team.launch()).empty()) {
            kernel.run(part, team.launch());
          } else {  // then another kernel takes small batches, and has to give these bits
            Backend(kernel_table(Device{}), team.launch(), DType::kF32)(part);
          }
        }
        ASSERT_EQ(together, memory.outputs()) << "in pieces of " << piece;
      }
    }
  }
}

// The attention of a sequence's queries alone, in chunks and in a mixed batch: the same bits.
TEST(BatchInvarianceTest, PagedAttention) {
  Team team(2);
  for (const Case<PagedAttentionOp>& test_case : cases<PagedAttentionOp>()) {
    SCOPED_TRACE(fmt::format("case \"{}\", repeat with OCTET_TEST_SEED={}", test_case.name, base_seed()));
    CaseMemory memory(seed_of(base_seed(), test_case.name));
    const PagedAttentionOp op = test_case.make(memory);
    const int32_t* starts = op.query_start.data<int32_t>();
    for (const Kernel<PagedAttentionOp>& kernel : kernel_table(Device{}).of<PagedAttentionOp>()) {
      if (!kernel.declines(op, team.launch()).empty()) continue;
      SCOPED_TRACE(kernel.name);
      const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, team.launch());
      for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{1000}}) {
        memory.reset(std::byte{0xff});
        for (int64_t s = 0; s < op.num_sequences(); ++s) {
          const int64_t num_queries = starts[s + 1] - starts[s];
          for (int64_t begin = 0; begin < num_queries; begin += chunk) {
            const int64_t count = std::min(chunk, num_queries - begin);
            const int32_t seq_len = op.seq_lens.data<int32_t>()[s] - static_cast<int32_t>(num_queries - begin - count);
            const int32_t part_starts[2] = {0, static_cast<int32_t>(count)};
            PagedAttentionOp part = op;
            part.q = op.q.rows(starts[s] + begin, count);
            part.out = op.out.rows(starts[s] + begin, count);
            if (op.quantized.data) {
              part.quantized.data = op.quantized.data.rows(starts[s] + begin, count);
              if (op.quantized.format.dynamic) part.quantized.scale = op.quantized.scale.rows(starts[s] + begin, count);
            }
            part.query_start = ConstTensor(reinterpret_cast<const std::byte*>(part_starts), DType::kI32, Shape{2});
            part.seq_lens = ConstTensor(reinterpret_cast<const std::byte*>(&seq_len), DType::kI32, Shape{1});
            part.block_table = op.block_table.rows(s, 1);
            part.check();
            kernel.run(part, team.launch());
          }
        }
        ASSERT_EQ(together, memory.outputs()) << "in chunks of " << chunk;
      }
    }
  }
}

}  // namespace
}  // namespace octet::ops_test
