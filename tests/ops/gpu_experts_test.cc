// A mixture's ops one behind the other on a GPU, as a recorded step has them: kernels start while those before them
// end, and products read the plan and their weights early. Layer after layer with another routing in the same memory
// must give what the ops give one at a time.
#include <gtest/gtest.h>

#include "octet/device/graph.h"
#include "octet/device/stream.h"
#include "octet/kernels/backends.h"
#include "tests/ops/parity.h"

namespace octet::ops_test {
namespace {

constexpr int kLayers = 12;
constexpr int kReplays = 30;
constexpr int64_t kExperts = 8, kSlots = 2, kHidden = 1024, kIntermediate = 2048;

struct Mixture {
  std::vector<ConstTensor> x, logits;  // of each layer
  std::vector<Tensor> out;
  ConstQuantTensor gate_up, down;
  QuantTensor rows, inner;
  Tensor ids, weights, wide, y;
  ExpertPlan plan;
};

ConstQuantTensor make_stack(CaseMemory& m, int64_t n, int64_t k) {
  ConstQuantTensor stack(m.weight(DType::kF8E4M3, Shape{kExperts, n, k}, [](Random& r) { return 64.0f * r.normal(); }),
                         {}, kF8Channel);
  stack.scale = m.weight(DType::kF32, kF8Channel.stack_scale_shape(kExperts, n, k),
                         [](Random& r) { return static_cast<float>((0.5 + r.uniform()) / 2048.0); });
  return stack;
}

QuantTensor make_rows(CaseMemory& m, int64_t rows, int64_t columns) {
  return {m.scratch(DType::kF8E4M3, Shape{rows, columns}),
          m.scratch(DType::kF32, kF8DynamicToken.scale_shape(rows, columns)), kF8DynamicToken};
}

Mixture make_mixture(CaseMemory& m, int64_t tokens) {
  const int64_t rows = tokens * kSlots;
  const auto integers = [&](Shape shape) { return m.output("plan", DType::kI32, shape, kExact); };
  Mixture mixture{.x = {},
                  .logits = {},
                  .out = {},
                  .gate_up = make_stack(m, 2 * kIntermediate, kHidden),
                  .down = make_stack(m, kHidden, kIntermediate),
                  .rows = make_rows(m, rows, kHidden),
                  .inner = make_rows(m, rows, kIntermediate),
                  .ids = integers(Shape{tokens, kSlots}),
                  .weights = m.scratch(DType::kF32, Shape{tokens, kSlots}),
                  .wide = m.scratch(DType::kBF16, Shape{rows, 2 * kIntermediate}),
                  .y = m.scratch(DType::kBF16, Shape{rows, kHidden}),
                  .plan = {integers(Shape{kExperts + 1}), integers(Shape{rows}), integers(Shape{tokens, kSlots})}};
  for (int i = 0; i < kLayers; ++i) {
    mixture.x.push_back(m.input(DType::kBF16, Shape{tokens, kHidden}));
    mixture.logits.push_back(m.input(DType::kF32, Shape{tokens, kExperts}));
    mixture.out.push_back(m.output(fmt::format("out {}", i), DType::kBF16, Shape{tokens, kHidden}, kExact));
  }
  return mixture;
}

// then(): after every op.
template <class Then>
void run_layer(const Mixture& m, size_t i, const Backend& backend, bool follows_plan, Then&& then) {
  const auto run = [&](const auto& op) {
    backend(op);
    then();
  };
  run(RouteExpertsOp{.expert_ids = m.ids,
                     .weights = m.weights,
                     .plan = m.plan,
                     .x = m.logits[i],
                     .correction = {},
                     .routing = {.weights = ExpertRouting::Weights::kRenormalised}});
  run(ExpertPermuteOp{.out = m.rows, .x = m.x[i], .plan = m.plan});
  run(ExpertMatmulOp{.out = m.wide, .x = m.rows, .weight = m.gate_up, .plan = m.plan, .follows_plan = follows_plan});
  run(ExpertSiluAndMulOp{.out = m.inner, .x = m.wide, .plan = m.plan});
  run(ExpertMatmulOp{.out = m.y, .x = m.inner, .weight = m.down, .plan = m.plan, .follows_plan = follows_plan});
  run(CombineExpertsOp{
      .out = m.out[i], .y = m.y, .weights = m.weights, .rows = m.plan.rows, .shared = {}, .shared_gate = {}});
}

class GpuExpertsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (parse_device("auto").kind == DeviceKind::kCpu) GTEST_SKIP() << "no GPU";
  }
};

// A kernel for few tokens, for some, and for many.
INSTANTIATE_TEST_SUITE_P(Tokens, GpuExpertsTest, ::testing::Values(1, 5, 16, 40, 400));

TEST_P(GpuExpertsTest, ARecordedStepGivesWhatItsOpsGive) {
  StreamOwner stream(parse_device("auto"));
  const Launch launch{.stream = stream.get(), .gpu = &gpu_properties(stream.get().device)};
  const Backend backend(kernel_table(stream.get().device), launch, DType::kBF16);
  CaseMemory memory(base_seed(), stream.get());
  const Mixture mixture = make_mixture(memory, GetParam());
  memory.reset(std::byte{0xff});
  for (size_t i = 0; i < kLayers; ++i) {
    run_layer(mixture, i, backend, false, [&] { synchronize(stream.get()); });
  }
  const CaseMemory::Snapshot expected = memory.outputs();
  memory.reset(std::byte{0xff});
  const Graph graph = Graph::capture(stream.get(), [&] {
    for (size_t i = 0; i < kLayers; ++i) run_layer(mixture, i, backend, true, [] {});
  });
  for (int replay = 0; replay < kReplays; ++replay) {
    memory.reset(std::byte{0x7f});
    graph.replay(stream.get());
    ASSERT_EQ(memory.differences(expected, memory.outputs()), "")
        << "replay " << replay << ", OCTET_TEST_SEED=" << base_seed();
  }
}

}  // namespace
}  // namespace octet::ops_test
