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
  const auto one = [&](const QuantScheme& scheme, const QuantFormat& activation, std::optional<KvCacheQuant> cache) {
    return WrittenQuant{{{&scheme, activation, {}}}, ignore, cache};
  };
  const Case cases[] = {{"autofp8", one(fp8_tensor_scheme(), kF8StaticTensor, KvCacheQuant{})},
                        {"autofp8", one(fp8_tensor_scheme(), kF8DynamicToken, {})},
                        {"autofp8", one(fp8_block_scheme(), kF8DynamicGroup, {})},
                        {"compressed-tensors", one(fp8_tensor_scheme(), kF8StaticTensor, per_head)},
                        {"compressed-tensors", one(fp8_channel_scheme(), kF8DynamicToken, {})},
                        {"compressed-tensors", one(fp8_block_scheme(), kF8DynamicGroup, {})},
                        {"compressed-tensors", one(int8_channel_scheme(), kI8DynamicToken, {})},
                        {"compressed-tensors", one(fp8_channel_scheme(), plain_format(DType::kF32), {})}};
  for (const Case& c : cases) {
    const DialectWriter& writer = find_writer(c.dialect, c.quant);
    const Json json = writer.quantization_config(c.quant);
    const CheckpointQuant read = read_dialect(json);
    ASSERT_EQ(read.groups.size(), 1u);
    EXPECT_EQ(read.groups[0].scheme.on_disk, c.quant.groups[0].scheme) << json.dump();
    EXPECT_EQ(read.groups[0].scheme.activation, c.quant.groups[0].activation) << json.dump();
    EXPECT_NE(read.group_of("model.layers.0.mlp.up_proj"), nullptr);
    EXPECT_EQ(read.group_of("model.layers.0.mlp.gate"), nullptr);
    EXPECT_EQ(read.kv_cache.has_value(), c.quant.kv_cache.has_value());
    EXPECT_EQ(read.kv_cache && read.kv_cache->per_head, c.quant.kv_cache && c.quant.kv_cache->per_head);
    const Shape shape = writer.scale_shape(c.quant.groups[0].scheme->weight_format(), 256, 384);
    const std::vector<StoredTensor> stored = c.quant.groups[0].scheme->stored_tensors(256, 384);
    EXPECT_NE(std::find(stored[1].shapes.begin(), stored[1].shapes.end(), shape), stored[1].shapes.end());
  }
  EXPECT_EQ(find_writer("", cases[0].quant).name, "autofp8");
  EXPECT_EQ(find_writer("", cases[6].quant).name, "compressed-tensors");
  EXPECT_THROW(find_writer("awq", cases[0].quant), Error);
  WrittenQuant heads = cases[0].quant;
  heads.kv_cache = per_head;
  EXPECT_THROW(find_writer("autofp8", heads), Error);
}

// Linears that differ: each group says its own, and what none names stays plain.
TEST(DialectWriter, GroupsThatDiffer) {
  const std::string gate = "model.layers.0.mlp.gate_proj", up = "model.layers.0.mlp.up_proj",
                    down = "model.layers.0.mlp.down_proj", o = "model.layers.0.self_attn.o_proj";
  const WrittenQuant quant{
      {{&int8_channel_scheme(), kI8DynamicToken, {gate, up}}, {&fp8_channel_scheme(), kF8DynamicToken, {down}}},
      {"lm_head", o},
      {}};
  EXPECT_THROW(find_writer("autofp8", quant), Error);
  const Json json = find_writer("", quant).quantization_config(quant);
  EXPECT_EQ(json.at("format"), "mixed-precision");
  EXPECT_EQ(json.at("config_groups").at("group_0").at("format"), "int-quantized");
  EXPECT_EQ(json.at("config_groups").at("group_1").at("format"), "float-quantized");
  const CheckpointQuant read = read_dialect(json);
  for (const std::string& module : {gate, up}) {
    EXPECT_EQ(read.group_of(module)->scheme.on_disk, &int8_channel_scheme());
    EXPECT_EQ(read.group_of(module)->scheme.activation, kI8DynamicToken);
  }
  EXPECT_EQ(read.group_of(down)->scheme.on_disk, &fp8_channel_scheme());
  EXPECT_EQ(read.group_of(o), nullptr);
  EXPECT_EQ(read.group_of("model.layers.10.mlp.down_proj"), nullptr);
}

}  // namespace
}  // namespace octet
