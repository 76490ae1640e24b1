// The reference kernels of mixtures of experts against PyTorch in F64 (scripts/record_ops.py), and by hand where the
// contract says more than PyTorch: ties, broken rows, a rank's share.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/base/json.h"
#include "octet/kernels/backends.h"

namespace octet {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const Json& golden() {
  static const Json json = read_json_file(OCTET_SOURCE_DIR "/tests/golden/ops/ops.json");
  return json;
}

template <class T>
Tensor view(std::vector<T>& values, Shape shape) {
  OCTET_CHECK(static_cast<int64_t>(values.size()) == shape.num_elements());
  return Tensor(reinterpret_cast<std::byte*>(values.data()), DTypeOf<T>::value, shape);
}

template <class Op>
void run_reference(const Op& op) {
  Backend(kernel_table(Device{}, KernelSelection::kReferenceOnly), Launch{}, DType::kF32)(op);
}

// The results of one routing.
struct Routed {
  std::vector<int32_t> ids, offsets, order, rows;
  std::vector<float> weights;
  ConstExpertPlan plan;

  Routed(std::vector<float> logits, int64_t tokens, int64_t slots, const ExpertRouting& routing,
         std::vector<float> correction = {}, int64_t first = 0, int64_t here = -1) {
    const int64_t experts = static_cast<int64_t>(logits.size()) / tokens;
    if (here < 0) here = experts;
    const auto rows_count = static_cast<size_t>(tokens * slots);
    ids.resize(rows_count);
    weights.resize(rows_count);
    offsets.resize(static_cast<size_t>(here) + 1);
    order.resize(rows_count);
    rows.resize(rows_count);
    const ExpertPlan made(view(offsets, {here + 1}), view(order, {tokens * slots}), view(rows, {tokens, slots}));
    RouteExpertsOp op{.expert_ids = view(ids, {tokens, slots}),
                      .weights = view(weights, {tokens, slots}),
                      .plan = made,
                      .x = view(logits, {tokens, experts}),
                      .correction = {},
                      .routing = routing,
                      .first_expert = first};
    if (!correction.empty()) op.correction = view(correction, {experts});
    run_reference(op);
    plan = made;
  }
};

TEST(ExpertsSpecificationTest, Routing) {
  using R = ExpertRouting;
  for (const Json& g : golden()["routing"]) {
    const auto shape = g["shape"].get<std::vector<int64_t>>();
    const R routing{.scoring = g["sigmoid"] ? R::Scoring::kSigmoid : R::Scoring::kSoftmax,
                    .group_score = g["two"] ? R::GroupScore::kTwoLargest : R::GroupScore::kLargest,
                    .weights = g["renormalise"] ? R::Weights::kRenormalised : R::Weights::kAsScored,
                    .num_groups = g["groups"],
                    .num_chosen_groups = g["chosen"],
                    .scaling_factor = g["factor"]};
    const auto correction = g["corrected"] ? g["correction"].get<std::vector<float>>() : std::vector<float>();
    const Routed found(g["logits"].get<std::vector<float>>(), shape[0], shape[2], routing, correction);
    EXPECT_EQ(found.ids, g["ids"].get<std::vector<int32_t>>());
    for (size_t i = 0; i < found.weights.size(); ++i) {
      const auto want = g["weights"][i].get<double>();
      ASSERT_NEAR(found.weights[i], want, 2e-7 * want) << i;
    }
  }
}

TEST(ExpertsSpecificationTest, ThePlanSortsRowsByExpert) {
  // Tokens 0, 1, 2 take experts (2, 0), (0, 2), (3, 2).
  const Routed all({1, 0, 2, 0, 3, 0, 2, 0, 0, 0, 1, 2}, 3, 2, {});
  EXPECT_EQ(all.ids, (std::vector<int32_t>{2, 0, 0, 2, 3, 2}));
  EXPECT_EQ(all.offsets, (std::vector<int32_t>{0, 2, 2, 5, 6}));
  EXPECT_EQ(all.order, (std::vector<int32_t>{1, 2, 0, 3, 5, 4}));
  EXPECT_EQ(all.rows, (std::vector<int32_t>{2, 0, 1, 3, 5, 4}));
  // A rank with experts 1 and 2.
  const Routed part({1, 0, 2, 0, 3, 0, 2, 0, 0, 0, 1, 2}, 3, 2, {}, {}, 1, 2);
  EXPECT_EQ(part.ids, all.ids);
  EXPECT_EQ(part.offsets, (std::vector<int32_t>{0, 0, 3}));
  EXPECT_EQ(part.order, (std::vector<int32_t>{0, 3, 5, -1, -1, -1}));
  EXPECT_EQ(part.rows, (std::vector<int32_t>{0, -1, -1, 1, -1, 2}));
}

TEST(ExpertsSpecificationTest, TiesGoToTheLowestIdAndBrokenRowsStayTheirOwn) {
  const float nan = std::nanf("");
  const Routed found({1,          1,          1,          1,            // ties
                      0,          nan,        1,          2,            // broken
                      0,          5,          0,          -kInfinity,   // minus infinity is a number like others
                      kInfinity,  0,          0,          0,            // broken
                      -kInfinity, -kInfinity, -kInfinity, -kInfinity},  // broken
                     5, 2, {.weights = ExpertRouting::Weights::kRenormalised});
  EXPECT_EQ(found.ids, (std::vector<int32_t>{0, 1, 0, 1, 1, 0, 0, 1, 0, 1}));
  for (const size_t i : {size_t{2}, size_t{3}, size_t{6}, size_t{7}, size_t{8}, size_t{9}})
    EXPECT_TRUE(std::isnan(found.weights[i])) << i;
  EXPECT_EQ(found.weights[0], 0.5f);
  EXPECT_EQ(found.weights[1], 0.5f);
  EXPECT_NEAR(found.weights[4], 1.0 / (1.0 + std::exp(-5.0)), 1e-7);
}

TEST(ExpertsSpecificationTest, AWholeMixture) {
  const Json& g = golden()["mixture"];
  const auto shape = g["shape"].get<std::vector<int64_t>>();
  const int64_t t = shape[0], experts = shape[1], k = shape[2], h = shape[3], i = shape[4];
  const auto floats = [&](const char* key) { return g[key].get<std::vector<float>>(); };
  auto x = floats("x"), gate_up = floats("gate_up"), down = floats("down"), shared = floats("shared"),
       shared_gate = floats("shared_gate");
  Routed routed(floats("logits"), t, k, {});
  const auto rows = static_cast<size_t>(t * k);
  std::vector<float> permuted(rows * static_cast<size_t>(h)), wide(rows * static_cast<size_t>(2 * i)),
      inner(rows * static_cast<size_t>(i)), y(rows * static_cast<size_t>(h)), out(static_cast<size_t>(t * h));
  const auto plain = [](Tensor tensor) { return ConstQuantTensor(ConstTensor(tensor)); };
  run_reference(
      ExpertPermuteOp{.out = QuantTensor(view(permuted, {t * k, h})), .x = view(x, {t, h}), .plan = routed.plan});
  run_reference(ExpertMatmulOp{.out = view(wide, {t * k, 2 * i}),
                               .x = plain(view(permuted, {t * k, h})),
                               .weight = plain(view(gate_up, {experts, 2 * i, h})),
                               .plan = routed.plan});
  run_reference(ExpertSiluAndMulOp{
      .out = QuantTensor(view(inner, {t * k, i})), .x = view(wide, {t * k, 2 * i}), .plan = routed.plan});
  run_reference(ExpertMatmulOp{.out = view(y, {t * k, h}),
                               .x = plain(view(inner, {t * k, i})),
                               .weight = plain(view(down, {experts, h, i})),
                               .plan = routed.plan});
  run_reference(CombineExpertsOp{.out = view(out, {t, h}),
                                 .y = view(y, {t * k, h}),
                                 .weights = view(routed.weights, {t, k}),
                                 .rows = routed.plan.rows,
                                 .shared = view(shared, {t, h}),
                                 .shared_gate = view(shared_gate, {t, 1})});
  for (size_t at = 0; at < out.size(); ++at) {
    const auto want = g["out"][at].get<double>();
    ASSERT_NEAR(out[at], want, 4e-6) << at;  // three roundings to F32 of values of about ten
  }
}

}  // namespace
}  // namespace octet
