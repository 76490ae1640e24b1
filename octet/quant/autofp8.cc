// quant_method "fp8" without blocks: one scale per tensor, as AutoFP8 writes it, and as the Mistral 3 family does with
// other names for the scales.
#include <fmt/format.h>

#include <array>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {

CheckpointQuant read_autofp8(const JsonObject& config) {
  // The last ones transformers writes for every FP8 model.
  constexpr std::array<std::string_view, 12> kKnown = {"quant_method",    "activation_scheme",
                                                       "ignored_layers",  "modules_to_not_convert",
                                                       "kv_cache_scheme", "fmt",
                                                       "store_dtype",     "weight_block_size",
                                                       "scale_fmt",       "modules_to_convert",
                                                       "dequantize",      "expert_dtype"};
  warn_of_unknown_keys(config, kKnown);
  const std::string activation = config.get_string("activation_scheme");
  if (activation != "static" && activation != "dynamic")
    unsupported(config, "activation_scheme", "\"static\" or \"dynamic\"");
  if (const Json* fmt = config.find_raw("fmt"); fmt != nullptr && *fmt != "e4m3" && *fmt != "float8_e4m3fn")
    unsupported(config, "fmt", "\"e4m3\"");
  CheckpointQuant quant{.dialect = "AutoFP8", .groups = {}, .ignore = {}, .kv_cache = {}};
  quant.groups.push_back(every_linear(fp8_tensor_scheme(), activation == "static" ? kF8StaticTensor : kF8DynamicToken));
  quant.ignore = read_modules(config, "ignored_layers");
  for (ModulePattern& pattern : read_modules(config, "modules_to_not_convert")) quant.ignore.push_back(pattern);
  if (config.find_raw("kv_cache_scheme") != nullptr) {
    if (config.json()["kv_cache_scheme"] != "static") unsupported(config, "kv_cache_scheme", "\"static\"");
    quant.kv_cache.emplace();
  }
  return quant;
}

namespace {

std::string declines(const WrittenQuant& quant) {
  if (quant.groups.size() != 1) return "cannot say that linears differ";
  const WrittenGroup& group = quant.groups.front();
  if (group.scheme != &fp8_tensor_scheme())
    return fmt::format("cannot say {}: it has one FP8 scale per tensor, or blocks", group.scheme->name());
  if (!group.activation.quantized()) return "cannot say that activations stay as they are";
  if (quant.kv_cache && quant.kv_cache->per_head) return "has one scale per layer for the KV cache, not one per head";
  return "";
}

Json quantization_config(const WrittenQuant& quant) {
  Json config = {{"quant_method", "fp8"},
                 {"activation_scheme", quant.groups.front().activation.dynamic ? "dynamic" : "static"},
                 {"ignored_layers", quant.ignore}};
  if (quant.kv_cache) config["kv_cache_scheme"] = "static";
  return config;
}

}  // namespace

const DialectWriter& autofp8_writer() {
  static const DialectWriter writer{.name = "autofp8",
                                    .declines = declines,
                                    .quantization_config = quantization_config,
                                    .weight_scale = "weight_scale",
                                    .scale_shape = [](const QuantFormat&, int64_t, int64_t) { return Shape{}; },
                                    .scalar = Shape{}};
  return writer;
}

}  // namespace octet
