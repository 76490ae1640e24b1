// quant_method "fp8" with weight_block_size: DeepSeek's, and transformers' fine-grained FP8.
#include <array>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

QuantFormat read_block(const JsonObject& config) {
  const Json& sides = config.json()["weight_block_size"];
  const auto is_side = [](const Json& side) { return side.is_number_integer() && side > 0 && side <= kMaxTileSide; };
  if (!sides.is_array() || sides.size() != 2 || !is_side(sides[0]) || !is_side(sides[1]))
    unsupported(config, "weight_block_size", "two sides, such as [128, 128]");
  if (sides == Json::array({1, 32})) unsupported(config, "weight_block_size", "other blocks than those of MXFP8");
  QuantFormat block = kF8Block;
  block.group_rows = sides[0].get<int32_t>();
  block.group_cols = read_input_group(config, "weight_block_size", sides[1].get<int64_t>());
  return block;
}

}  // namespace

CheckpointQuant read_block_fp8(const JsonObject& config) {
  constexpr std::array<std::string_view, 11> kKnown = {"quant_method",       "activation_scheme",
                                                       "weight_block_size",  "scale_fmt",
                                                       "ignored_layers",     "modules_to_not_convert",
                                                       "modules_to_convert", "fmt",
                                                       "store_dtype",        "dequantize",
                                                       "expert_dtype"};
  warn_of_unknown_keys(config, kKnown);
  if (config.get_string("activation_scheme") != "dynamic") unsupported(config, "activation_scheme", "\"dynamic\"");
  const QuantFormat block = read_block(config);
  if (const Json* fmt = config.find_raw("fmt"); fmt != nullptr && *fmt != "e4m3" && *fmt != "float8_e4m3fn")
    unsupported(config, "fmt", "\"e4m3\"");
  QuantFormat activation = kF8DynamicGroup;
  activation.group_cols = block.group_cols;
  if (const Json* format = config.find_raw("scale_fmt"); format != nullptr) {
    if (*format != "ue8m0" && *format != "float") unsupported(config, "scale_fmt", "\"ue8m0\" or \"float\"");
    activation.power_of_two = *format == "ue8m0";
  }
  CheckpointQuant quant{.dialect = "FP8 blocks", .groups = {}, .ignore = {}, .kv_cache = {}};
  quant.groups.push_back(every_linear(tile_scheme(quant, block), activation));
  quant.ignore = read_modules(config, "ignored_layers");
  for (ModulePattern& pattern : read_modules(config, "modules_to_not_convert")) quant.ignore.push_back(pattern);
  return quant;
}

namespace {

std::string declines(const WrittenQuant& quant) {
  if (quant.groups.size() != 1) return "cannot say that linears differ";
  if (quant.groups.front().scheme != &fp8_block_scheme()) return "has blocks of 128 x 128 only";
  if (quant.groups.front().activation != kF8DynamicGroup)
    return "has blocks only with activations that are dynamic in groups of 128";
  if (quant.kv_cache) return "has no scales for the KV cache beside blocks";
  return "";
}

Json quantization_config(const WrittenQuant& quant) {
  return {{"quant_method", "fp8"},
          {"activation_scheme", "dynamic"},
          {"fmt", "e4m3"},
          {"weight_block_size", Json::array({128, 128})},
          {"modules_to_not_convert", quant.ignore}};
}

}  // namespace

const DialectWriter& block_fp8_writer() {
  static const DialectWriter writer{
      .name = "autofp8",
      .declines = declines,
      .quantization_config = quantization_config,
      .weight_scale = "weight_scale_inv",
      .scale_shape = [](const QuantFormat& format, int64_t n, int64_t k) { return format.scale_shape(n, k); },
      .scalar = Shape{}};
  return writer;
}

}  // namespace octet
