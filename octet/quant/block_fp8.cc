// quant_method "fp8" with weight_block_size: DeepSeek's, and transformers' fine-grained FP8.
#include <array>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {

CheckpointQuant read_block_fp8(const JsonObject& config) {
  constexpr std::array<std::string_view, 8> kKnown = {"quant_method", "activation_scheme", "weight_block_size",
                                                      "scale_fmt",    "ignored_layers",    "modules_to_not_convert",
                                                      "fmt",          "store_dtype"};
  warn_of_unknown_keys(config, kKnown);
  if (config.get_string("activation_scheme") != "dynamic") unsupported(config, "activation_scheme", "\"dynamic\"");
  if (config.json()["weight_block_size"] != Json::array({128, 128}))
    unsupported(config, "weight_block_size", "[128, 128]");
  if (const Json* fmt = config.find_raw("fmt"); fmt != nullptr && *fmt != "e4m3" && *fmt != "float8_e4m3fn")
    unsupported(config, "fmt", "\"e4m3\"");
  QuantFormat activation = kF8DynamicGroup;
  if (const Json* format = config.find_raw("scale_fmt"); format != nullptr) {
    if (*format != "ue8m0") unsupported(config, "scale_fmt", "\"ue8m0\"");
    activation.power_of_two = true;
  }
  CheckpointQuant quant{.dialect = "FP8 blocks", .groups = {}, .ignore = {}, .kv_cache = {}};
  quant.groups.push_back(every_linear(fp8_block_scheme(), activation));
  quant.ignore = read_modules(config, "ignored_layers");
  for (ModulePattern& pattern : read_modules(config, "modules_to_not_convert")) quant.ignore.push_back(pattern);
  return quant;
}

namespace {

std::string declines(const WrittenQuant& quant) {
  if (quant.scheme != &fp8_block_scheme()) return "has blocks of 128 x 128 only";
  if (quant.activation != kF8DynamicGroup) return "has blocks only with activations that are dynamic in groups of 128";
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
