#include "octet/layers/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/error.h"

namespace octet {
namespace {

ModelConfig config_with(const Json& scaling, int64_t head_dim, double theta, int64_t max_position) {
  ModelConfig config;
  config.path = "config.json";
  config.head_dim = head_dim;
  config.rope_theta = theta;
  config.max_position_embeddings = max_position;
  config.rope_scaling = scaling;
  config.json = Json::object();
  return config;
}

// Recorded from transformers' ROPE_INIT_FUNCTIONS by scripts/make_golden.py rope.
TEST(Rope, FrequenciesOfTransformers) {
  const Json golden = read_json_file(std::string(OCTET_SOURCE_DIR) + "/tests/golden/models/rope.json");
  ASSERT_GE(golden.at("cases").size(), 30u);
  for (const Json& test : golden.at("cases")) {
    SCOPED_TRACE(test.at("rope_scaling").dump() + " head_dim " + test.at("head_dim").dump());
    const ModelConfig config =
        config_with(test.at("rope_scaling"), test.at("head_dim").get<int64_t>(), test.at("rope_theta").get<double>(),
                    test.at("max_position_embeddings").get<int64_t>());
    const RopeFrequencies ours = rope_frequencies(config);
    const auto theirs = test.at("inv_freq").get<std::vector<double>>();
    ASSERT_EQ(ours.inv_freq.size(), theirs.size());
    for (size_t i = 0; i < theirs.size(); ++i) {
      // Torch blends interpolated and kept frequencies in F32: a few roundings of 2^-24 that cancel in part.
      EXPECT_NEAR(static_cast<double>(ours.inv_freq[i]) / theirs[i], 1.0, 4e-6) << i;
    }
    EXPECT_NEAR(static_cast<double>(ours.attention_factor), test.at("attention_factor").get<double>(), 1e-6);
    EXPECT_EQ(ours.ntk_factor, 0.0f);
  }
}

TEST(Rope, OlderSpellingAndPartialRotation) {
  const Json linear = {{"type", "linear"}, {"factor", 2.0}, {"partial_rotary_factor", 0.5}};
  const RopeFrequencies frequencies = rope_frequencies(config_with(linear, 16, 10000.0, 64));
  ASSERT_EQ(frequencies.inv_freq.size(), 4u);
  EXPECT_FLOAT_EQ(frequencies.inv_freq[0], 0.5f);
  EXPECT_FLOAT_EQ(frequencies.inv_freq[1], 0.05f);
  EXPECT_EQ(rope_frequencies(config_with(Json(), 16, 10000.0, 64)).inv_freq.size(), 8u);
}

TEST(Rope, DynamicKeepsTheBaseFrequencies) {
  const RopeFrequencies frequencies =
      rope_frequencies(config_with({{"rope_type", "dynamic"}, {"factor", 4.0}}, 8, 10000.0, 64));
  EXPECT_FLOAT_EQ(frequencies.inv_freq[1], 0.1f);
  EXPECT_EQ(frequencies.ntk_factor, 4.0f);
  EXPECT_EQ(frequencies.ntk_original_max, 64);
}

std::string error_of(const Json& scaling) {
  try {
    rope_frequencies(config_with(scaling, 16, 10000.0, 64));
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ErrorCode::kInternal);
    return error.what();
  }
  return "no error";
}

TEST(Rope, ErrorsNameTheField) {
  using testing::HasSubstr;
  EXPECT_THAT(error_of({{"rope_type", "longrope"}}),
              HasSubstr("rope_type \"longrope\" is not supported; supported: default, linear, dynamic, yarn, llama3"));
  EXPECT_THAT(error_of({{"rope_type", "linear"}}), HasSubstr("config.json: rope_scaling: factor"));
  EXPECT_THAT(error_of({{"rope_type", "linear"}, {"factor", -1.0}}), HasSubstr("factor: -1 is not positive"));
  EXPECT_THAT(error_of({{"rope_type", "linear"}, {"factor", "x"}}), HasSubstr("factor"));
  EXPECT_THAT(error_of({{"partial_rotary_factor", 3.0}}), HasSubstr("partial_rotary_factor: 48 of 16 dimensions"));
  EXPECT_THAT(error_of({{"rope_type", "llama3"}, {"factor", 2.0}, {"low_freq_factor", 4.0}, {"high_freq_factor", 4.0}}),
              HasSubstr("high_freq_factor 4 is not above low_freq_factor 4"));
}

}  // namespace
}  // namespace octet
