#include "octet/checkpoint/kv_cache_scales.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "octet/checkpoint/weights_for_test.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kLayer0 = "model.layers.0.self_attn.";
constexpr const char* kLayer1 = "model.layers.1.self_attn.";

struct Scale {
  std::string name;
  DType dtype;
  Shape shape;
  std::vector<float> values;
};

KvCacheScales read(const std::vector<Scale>& scales, int64_t num_layers = 2, int64_t num_kv_heads = 3) {
  const TestFolder folder;
  TestCheckpoint checkpoint;
  for (const Scale& scale : scales) checkpoint.add(scale.name, scale.dtype, scale.shape, scale.values);
  checkpoint.write(folder);
  const SafetensorsFolder files(folder.path());
  return read_kv_cache_scales(&files, num_layers, num_kv_heads);
}

TEST(KvCacheScales, ScalesOfEveryProducer) {
  const KvCacheScales scales = read({{std::string(kLayer0) + "k_proj.k_scale", DType::kF32, Shape{}, {0.5f}},
                                     {std::string(kLayer0) + "v_proj.output_scale", DType::kBF16, Shape{1}, {0.25f}},
                                     {std::string(kLayer1) + "k_scale", DType::kF16, Shape{3, 1, 1}, {1, 2, 3}},
                                     {std::string(kLayer1) + "q_scale", DType::kF32, Shape{6, 1, 1}, ramp(6, 1, 1)},
                                     {std::string(kLayer1) + "v_zero_point", DType::kI8, Shape{1}, {0}}});
  EXPECT_THAT(scales.layers[0].k, ElementsAre(0.5f));
  EXPECT_THAT(scales.layers[0].v, ElementsAre(0.25f));
  EXPECT_THAT(scales.layers[1].k, ElementsAre(1, 2, 3));
  EXPECT_THAT(scales.layers[1].v, IsEmpty());
  EXPECT_EQ(scales.num_found(), 3);
  EXPECT_EQ(scales.num_expected(), 4);
  EXPECT_TRUE(scales.per_head());
}

TEST(KvCacheScales, OneScaleForBoth) {
  const KvCacheScales scales = read({{std::string(kLayer0) + "kv_scale", DType::kF32, Shape{}, {0.5f}},
                                     {std::string(kLayer1) + "kv_scale", DType::kF32, Shape{1}, {0.5f}},
                                     {std::string(kLayer1) + "v_scale", DType::kF32, Shape{1}, {2}}});
  EXPECT_THAT(scales.layers[0].k, ElementsAre(0.5f));
  EXPECT_THAT(scales.layers[0].v, ElementsAre(0.5f));
  EXPECT_THAT(scales.layers[1].k, ElementsAre(0.5f));
  EXPECT_THAT(scales.layers[1].v, ElementsAre(2));
  EXPECT_EQ(scales.num_found(), 4);
  EXPECT_FALSE(scales.per_head());
  EXPECT_EQ(read_kv_cache_scales(nullptr, 2, 3).num_found(), 0);
}

TEST(KvCacheScales, BadScalesAreErrorsByName) {
  const auto error_of = [](const Scale& scale) { return error_text([&] { read({scale}); }); };
  const std::string name = std::string(kLayer0) + "k_scale";
  for (const float bad : {0.0f, -1.0f, std::nanf(""), INFINITY}) {
    EXPECT_THAT(error_of({name, DType::kF32, Shape{1}, {bad}}), HasSubstr(name + ": the scale is")) << bad;
    EXPECT_THAT(error_of({name, DType::kF32, Shape{3, 1, 1}, {1, bad, 1}}), HasSubstr(name + ": a scale is")) << bad;
  }
  EXPECT_THAT(
      error_of({name, DType::kF32, Shape{2, 1, 1}, {1, 1}}),
      HasSubstr(name + ": shape [2, 1, 1], expected one scale ([] or [1]) or one for each KV head ([3, 1, 1])"));
  EXPECT_THAT(error_of({name, DType::kI8, Shape{1}, {1}}), HasSubstr(name + ": dtype i8, expected f32, bf16 or f16"));
  EXPECT_THAT(error_of({"model.layers.2.self_attn.k_scale", DType::kF32, Shape{1}, {1}}),
              HasSubstr("model.layers.2.self_attn.k_scale: a scale of the KV cache of layer 2, config.json says 2"));
  const Scale one{name, DType::kF32, Shape{1}, {1}},
      same{std::string(kLayer0) + "k_proj.k_scale", DType::kF32, Shape{}, {1}};
  EXPECT_EQ(read({one, same}).num_found(), 1);
  const Scale other{same.name, DType::kF32, Shape{}, {2}};
  EXPECT_THAT(error_text([&] {
                read({one, other});
              }),
              HasSubstr("k_proj.k_scale and model.layers.0.self_attn.k_scale: expected one of them"));
}

}  // namespace
}  // namespace octet
