// A model cut into stages of layers gives the bits of the whole.
#include <gtest/gtest.h>

#include <cstring>

#include "model_runner.h"

namespace octet {
namespace {

class Stages : public testing::TestWithParam<std::string> {};

TEST_P(Stages, GiveTheBitsOfTheWhole) {
  const std::vector<int32_t> prompt = Recording(GetParam(), "golden.safetensors").integers("input_ids");
  RunnerOptions options{.folder = golden_folder(GetParam())};
  ModelRunner whole(options);
  const std::vector<float> expected = whole.step({Piece{0, prompt}});
  const int64_t layers = whole.config().num_hidden_layers;
  ASSERT_GE(layers, 2);
  Tensor residual;
  std::vector<std::unique_ptr<ModelRunner>> stages;
  for (int64_t layer = 0; layer < layers; ++layer) {
    options.layers = {.begin = layer, .end = layer + 1};
    stages.push_back(std::make_unique<ModelRunner>(options));
    EXPECT_EQ(stages.back()->model().kv_layout().num_layers, 1);
    EXPECT_LT(stages.back()->weights().consumed.size(), whole.weights().consumed.size());
    if (layer + 1 == layers) {
      EXPECT_EQ(stages.back()->step({Piece{0, prompt}}, residual), expected);
    } else {
      residual = stages.back()->forward({Piece{0, prompt}}, residual);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, Stages, testing::Values("llama3", "qwen2", "qwen3", "llama2"));

TEST(Stage, KnowsItsTensors) {
  ModelConfig config;
  config.num_hidden_layers = 12;
  const Stage stage({.begin = 1, .end = 3}, config);
  EXPECT_TRUE(stage.may_have("model.layers.2.mlp.up_proj.weight", "model.layers"));
  EXPECT_FALSE(stage.may_have("model.layers.11.mlp.up_proj.weight", "model.layers"));
  EXPECT_TRUE(stage.may_have("model.layers.12.x", "model.layers"));
  EXPECT_TRUE(stage.may_have("model.norm.weight", "model.layers"));
  EXPECT_FALSE(stage.first() || stage.last());
  EXPECT_TRUE(Stage(LayerRange{}, config).last());
  EXPECT_THROW(Stage(LayerRange{.begin = 12}, config), Error);
}

}  // namespace
}  // namespace octet
