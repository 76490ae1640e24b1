#include "octet/quantizer/expert_coverage.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "octet/quantizer/report_page.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

LinearFigures figures_of(const std::string& module, int64_t num_tokens) {
  return {.module = module, .n = 2, .k = 4, .calibrated = CalibratedFigures{.num_tokens = num_tokens}};
}

TEST(ExpertCoverage, NamesOfExperts) {
  const auto name = expert_linear_name("model.layers.10.block_sparse_moe.experts.127.w1");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->mixture, "model.layers.10.block_sparse_moe.experts");
  EXPECT_EQ(name->expert, 127);
  EXPECT_EQ(name->leaf, "w1");
  for (const char* other : {"model.layers.1.mlp.down_proj", "model.layers.1.mlp.shared_experts.3.up_proj",
                            "model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.7",
                            "model.layers.1.mlp.experts.7x.w1", "model.layers.1.mlp.experts.", "xexperts.1.w1",
                            "model.layers.1.mlp.experts.-1.w1", "a.experts.99999999999999999999.w1"})
    EXPECT_FALSE(expert_linear_name(other)) << other;
}

TEST(ExpertCoverage, CountsByMixture) {
  std::vector<LinearFigures> linears = {figures_of("model.layers.0.self_attn.q_proj", 900)};
  const int64_t counts[] = {0, 127, 128, 500, 0, 3};
  for (int64_t expert = 0; expert < 6; ++expert) {
    for (const char* leaf : {"down_proj", "gate_proj", "up_proj"})
      linears.push_back(figures_of(fmt::format("model.layers.0.mlp.experts.{}.{}", expert, leaf), counts[expert]));
  }
  linears.push_back(figures_of("model.layers.1.mlp.experts.2.down_proj", 7));
  linears.push_back({.module = "model.layers.2.mlp.experts.2.down_proj"});  // not calibrated
  const std::vector<ExpertCoverage> all = expert_coverage(linears);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].mixture, "model.layers.0.mlp.experts");
  EXPECT_EQ(all[0].num_tokens.size(), 6u);
  EXPECT_EQ(all[0].least(), 0);
  EXPECT_EQ(all[0].median(), 127);
  EXPECT_EQ(all[0].most(), 500);
  EXPECT_THAT(all[0].without_tokens(), ElementsAre(0, 4));
  EXPECT_THAT(all[0].with_few_tokens(), ElementsAre(1, 5));
  EXPECT_EQ(all[1].median(), 7);
  EXPECT_THAT(all[1].without_tokens(), IsEmpty());
  EXPECT_EQ(all[0].to_json(), Json({{"module", "model.layers.0.mlp.experts"},
                                    {"num_experts", 6},
                                    {"least", 0},
                                    {"median", 127},
                                    {"most", 500},
                                    {"without_tokens", {0, 4}},
                                    {"with_few_tokens", {1, 5}},
                                    {"few_tokens", 128}}));
  const std::string page = report_html({.linears = linears, .model = ModelFigures()});
  EXPECT_THAT(page, HasSubstr("<td>model.layers.0.mlp.experts</td><td>6</td><td>0</td><td>127</td><td>500</td>"
                              "<td>0, 4</td><td>1, 5</td>"));
  EXPECT_THAT(report_html({.linears = {linears[0]}, .model = ModelFigures()}), Not(HasSubstr("by expert")));
}

TEST(ExpertCoverage, ListsAreShort) {
  std::vector<int64_t> experts(16);
  std::iota(experts.begin(), experts.end(), 1);
  EXPECT_EQ(list_experts({}), "");
  EXPECT_THAT(list_experts(experts), testing::EndsWith("15, 16"));
  experts.push_back(17);
  EXPECT_THAT(list_experts(experts), testing::EndsWith("15, 16 and 1 more"));
}

// What was not measured is said to be so, and a resumed run reads it back.
TEST(ExpertCoverage, FiguresWithoutHeldOutTokens) {
  LinearFigures figures = figures_of("model.layers.0.mlp.experts.1.w2", 5);
  EXPECT_TRUE(figures.to_json().at("output_error").is_null());
  EXPECT_EQ(LinearFigures::from_json(figures.to_json()).to_json(), figures.to_json());
  figures.calibrated->num_measured = 3;
  figures.calibrated->output_error = 0.25;
  EXPECT_EQ(figures.to_json().at("output_error"), 0.25);
  EXPECT_EQ(LinearFigures::from_json(figures.to_json()).to_json(), figures.to_json());
}

}  // namespace
}  // namespace octet
