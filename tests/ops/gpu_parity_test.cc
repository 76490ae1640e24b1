// Every kernel of the GPU's table on every case that it does not decline, against the reference kernel on the CPU;
// skipped where there is no GPU.
#include <algorithm>
#include <optional>
#include <thread>

#include "octet/device/graph.h"
#include "octet/device/stream.h"
#include "tests/ops/parity.h"

namespace octet::ops_test {
namespace {

constexpr int64_t kWorkspaceBytes = 64 << 20;

// What GPU kernels launch on, and the threads of the reference kernel.
class Gpu {
 public:
  explicit Gpu(Device device)
      : stream_(device),
        memory_(device, kWorkspaceBytes, "workspace"),
        workspace_(make_workspace(memory_, stream_.get())),
        reference_team_(static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 16u))) {}

  Launch launch() const {
    return Launch{.stream = stream_.get(), .gpu = &gpu_properties(stream_.get().device), .workspace = workspace_};
  }
  Launch reference_launch() { return reference_team_.launch(); }
  // No kernel may rely on what the one before left there.
  void poison_workspace(std::byte poison) const {
    fill_bytes(workspace_.data, poison, workspace_.num_bytes, stream_.get());
  }
  bool counters_are_zero() const {
    std::vector<int32_t> counters(Workspace::kNumCounters);
    copy_bytes(counters.data(), workspace_.counters, Workspace::kNumCounters * int64_t{sizeof(int32_t)}, stream_.get());
    synchronize(stream_.get());
    return std::all_of(counters.begin(), counters.end(), [](int32_t counter) { return counter == 0; });
  }

 private:
  StreamOwner stream_;
  Buffer memory_;
  Workspace workspace_;
  Team reference_team_;
};

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Device device = parse_device("auto");
    if (device.kind == DeviceKind::kCpu) GTEST_SKIP() << "no GPU";
    gpu_.emplace(device);
  }
  Gpu& gpu() { return *gpu_; }

 private:
  std::optional<Gpu> gpu_;
};

template <class Op>
std::vector<Case<Op>> all_cases() {
  std::vector<Case<Op>> list = cases<Op>();
  for (Case<Op>& large : large_cases<Op>()) list.push_back(std::move(large));
  return list;
}

// Of every table.
template <class Op>
std::vector<Kernel<Op>> all_kernels(Device device) {
  std::vector<Kernel<Op>> list = kernel_table(device).template of<Op>();
  for (const Kernel<Op>& kernel : kernel_table(device, KernelSelection::kDeterministic).template of<Op>()) {
    const auto same = [&](const Kernel<Op>& other) { return other.name == kernel.name; };
    if (std::none_of(list.begin(), list.end(), same)) list.push_back(kernel);
  }
  return list;
}

template <class Op>
CaseMemory::Snapshot run_on_gpu(const Kernel<Op>& kernel, const Op& op, CaseMemory& memory, std::byte poison,
                                const Gpu& gpu) {
  gpu.poison_workspace(poison);
  return run(kernel, op, memory, poison, gpu.launch());
}

// As the engine runs it: recorded once, replayed.
template <class Op>
CaseMemory::Snapshot run_as_graph(const Kernel<Op>& kernel, const Op& op, CaseMemory& memory, const Gpu& gpu) {
  memory.reset(std::byte{0xff});
  const Graph graph = Graph::capture(gpu.launch().stream, [&] { kernel.run(op, gpu.launch()); });
  graph.replay(gpu.launch().stream);
  return memory.outputs();
}

// Attention on tensor cores rounds softmax weights to the cache's 16-bit type: to 2^-9 of themselves with BF16. A sum
// of values of about 1 is then off by up to 2^-8, some two thousand times F32's bound.
// What attention leaves to cuda.quantize is made of `out`, in BF16: relative bounds and codes are those of its
// rounding.
template <class Op>
double looseness_of(std::string_view kernel, const Op& op) {
  if (kernel.starts_with("hopper.attention") || kernel.starts_with("hopper.rope_attention")) return 2000.0;
  if constexpr (std::is_same_v<Op, PagedAttentionOp>) {
    const QuantFormat& format = op.quantized.format;
    if (format.quantized() && format != kF8DynamicToken && format != kF8StaticTensor) return 2.0;
  }
  return 1.0;
}

// After a kernel that ends late: `kernel` may start before it, and must wait for it.
template <class Op>
CaseMemory::Snapshot run_after_late_kernel(const Kernel<Op>& kernel, const Op& op, CaseMemory& memory, const Gpu& gpu) {
  memory.reset_late(std::byte{0xff});
  kernel.run(op, gpu.launch());
  return memory.outputs();
}

template <class Op>
void expect_parity(const Case<Op>& test_case, Gpu& gpu) {
  const uint64_t seed = seed_of(base_seed(), test_case.name);
  CaseMemory memory(seed, gpu.launch().stream, kAlignedGap);
  const Op op = test_case.make(memory);
  op.check();
  std::optional<CaseMemory::Snapshot> expected;  // by the reference, once somebody asks
  for (const Kernel<Op>& kernel : all_kernels<Op>(gpu.launch().stream.device)) {
    if (!kernel.declines(op, gpu.launch()).empty()) continue;
    SCOPED_TRACE(kernel.name);
    if (!expected) {
      CaseMemory on_cpu(seed, Stream{}, kAlignedGap);
      const Op same = test_case.make(on_cpu);
      expected =
          run(reference_kernel(same, gpu.reference_launch()), same, on_cpu, std::byte{0xff}, gpu.reference_launch());
    }
    const CaseMemory::Snapshot found = run_on_gpu(kernel, op, memory, std::byte{0xff}, gpu);
    EXPECT_EQ(memory.differences(*expected, found, looseness_of(kernel.name, op)), "");
    ASSERT_TRUE(gpu.counters_are_zero()) << "leaves counters of the workspace behind";
    EXPECT_TRUE(found == run_on_gpu(kernel, op, memory, std::byte{0x7f}, gpu))
        << "bits depend on what outputs or the workspace held, or change from run to run";
    EXPECT_TRUE(found == run_as_graph(kernel, op, memory, gpu)) << "a graph's replay gives other bits";
    EXPECT_TRUE(found == run_after_late_kernel(kernel, op, memory, gpu)) << "does not wait for the kernel before it";
  }
}

template <class Op>
class GpuParityTest : public GpuTest {};
TYPED_TEST_SUITE(GpuParityTest, AllOps, OpNames);

template <class Op>
void expect_parity(const std::vector<Case<Op>>& list, Gpu& gpu) {
  for (const Case<Op>& test_case : list) {
    SCOPED_TRACE(fmt::format("case \"{}\", repeat with OCTET_TEST_SEED={}", test_case.name, base_seed()));
    expect_parity(test_case, gpu);
    if (::testing::Test::HasFailure()) return;
  }
}

TYPED_TEST(GpuParityTest, SmallCases) { expect_parity(cases<TypeParam>(), this->gpu()); }
TYPED_TEST(GpuParityTest, LargeCases) { expect_parity(large_cases<TypeParam>(), this->gpu()); }

TYPED_TEST(GpuParityTest, EveryKernelTakesSomeCase) {
  const Launch launch = this->gpu().launch();
  const auto kernels = all_kernels<TypeParam>(launch.stream.device);
  ASSERT_FALSE(kernels.empty()) << "no kernel computes " << TypeParam::kName;
  std::vector<bool> takes(kernels.size(), false);
  for (const Case<TypeParam>& test_case : all_cases<TypeParam>()) {
    CaseMemory memory(seed_of(base_seed(), test_case.name), launch.stream, kAlignedGap);
    const TypeParam op = test_case.make(memory);
    for (size_t i = 0; i < kernels.size(); ++i) takes[i] = takes[i] || kernels[i].declines(op, launch).empty();
    if (std::find(takes.begin(), takes.end(), false) == takes.end()) return;
  }
  for (size_t i = 0; i < kernels.size(); ++i)
    EXPECT_TRUE(takes[i]) << kernels[i].name << ", OCTET_TEST_SEED=" << base_seed();
}

class GpuBatchInvarianceTest : public GpuTest, public ::testing::WithParamInterface<KernelSelection> {
 protected:
  template <class Op>
  void expect_of_all_cases() {
    for (const Case<Op>& test_case : all_cases<Op>()) {
      SCOPED_TRACE(fmt::format("case \"{}\", repeat with OCTET_TEST_SEED={}", test_case.name, base_seed()));
      CaseMemory memory(seed_of(base_seed(), test_case.name), gpu().launch().stream, kAlignedGap);
      const Op op = test_case.make(memory);
      const auto takes = [&](const Kernel<Op>& kernel) { return kernel.declines(op, gpu().launch()).empty(); };
      const auto kernels = all_kernels<Op>(gpu().launch().stream.device);
      if (std::none_of(kernels.begin(), kernels.end(), takes)) continue;  // a scale for each head
      expect_batch_invariance(op, memory, gpu().launch(), GetParam());
      if (HasFailure()) return;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Kernels, GpuBatchInvarianceTest,
                         ::testing::Values(KernelSelection::kFastest, KernelSelection::kDeterministic),
                         [](const auto& test) {
                           return test.param == KernelSelection::kFastest ? "fastest" : "deterministic";
                         });

TEST_P(GpuBatchInvarianceTest, HeadMatmul) { expect_of_all_cases<HeadMatmulOp>(); }
TEST_P(GpuBatchInvarianceTest, Matmul) { expect_of_all_cases<MatmulOp>(); }
TEST_P(GpuBatchInvarianceTest, RmsNorm) { expect_of_all_cases<RmsNormOp>(); }
TEST_P(GpuBatchInvarianceTest, SiluAndMul) { expect_of_all_cases<SiluAndMulOp>(); }
TEST_P(GpuBatchInvarianceTest, PagedAttention) { expect_of_all_cases<PagedAttentionOp>(); }
TEST_P(GpuBatchInvarianceTest, RopeAttention) { expect_of_all_cases<RopeAttentionOp>(); }

}  // namespace
}  // namespace octet::ops_test
