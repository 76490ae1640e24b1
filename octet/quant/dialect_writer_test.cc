#include <gtest/gtest.h>

#include <algorithm>

#include "octet/base/error.h"
#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

// What a dialect writes, its reader understands as it was meant.
TEST(DialectWriter, IsReadAsItWasMeant) {
  struct Case {
    std::string dialect;
    WrittenQuant quant;
  };
  const KvCacheQuant per_head{.per_head = true};
  const std::vector<std::string> ignore = {"lm_head", "model.layers.0.mlp.gate"};
  const Case cases[] = {{"autofp8", {&fp8_tensor_scheme(), kF8StaticTensor, ignore, KvCacheQuant{}}},
                        {"autofp8", {&fp8_tensor_scheme(), kF8DynamicToken, ignore, {}}},
                        {"autofp8", {&fp8_block_scheme(), kF8DynamicGroup, ignore, {}}},
                        {"compressed-tensors", {&fp8_tensor_scheme(), kF8StaticTensor, ignore, per_head}},
                        {"compressed-tensors", {&fp8_channel_scheme(), kF8DynamicToken, ignore, {}}},
                        {"compressed-tensors", {&fp8_block_scheme(), kF8DynamicGroup, ignore, {}}},
                        {"compressed-tensors", {&int8_channel_scheme(), kI8DynamicToken, ignore, {}}},
                        {"compressed-tensors", {&fp8_channel_scheme(), plain_format(DType::kF32), ignore, {}}}};
  for (const Case& c : cases) {
    const DialectWriter& writer = find_writer(c.dialect, c.quant);
    const Json json = writer.quantization_config(c.quant);
    const CheckpointQuant read = read_dialect(json);
    ASSERT_EQ(read.groups.size(), 1u);
    EXPECT_EQ(read.groups[0].scheme.on_disk, c.quant.scheme) << json.dump();
    EXPECT_EQ(read.groups[0].scheme.activation, c.quant.activation) << json.dump();
    EXPECT_NE(read.group_of("model.layers.0.mlp.up_proj"), nullptr);
    EXPECT_EQ(read.group_of("model.layers.0.mlp.gate"), nullptr);
    EXPECT_EQ(read.kv_cache.has_value(), c.quant.kv_cache.has_value());
    EXPECT_EQ(read.kv_cache && read.kv_cache->per_head, c.quant.kv_cache && c.quant.kv_cache->per_head);
    const Shape shape = writer.scale_shape(c.quant.scheme->weight_format(), 256, 384);
    const std::vector<StoredTensor> stored = c.quant.scheme->stored_tensors(256, 384);
    EXPECT_NE(std::find(stored[1].shapes.begin(), stored[1].shapes.end(), shape), stored[1].shapes.end());
  }
  EXPECT_EQ(find_writer("", cases[0].quant).name, "autofp8");
  EXPECT_EQ(find_writer("", cases[6].quant).name, "compressed-tensors");
  EXPECT_THROW(find_writer("awq", cases[0].quant), Error);
  WrittenQuant heads = cases[0].quant;
  heads.kv_cache = per_head;
  EXPECT_THROW(find_writer("autofp8", heads), Error);
}

}  // namespace
}  // namespace octet
