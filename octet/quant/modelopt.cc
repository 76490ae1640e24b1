// quant_method "modelopt" (NVIDIA ModelOpt): flat in config.json, or under "quantization" in hf_quant_config.json.
#include <array>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

QuantGroup read_algorithm(const JsonObject& config) {
  std::string algorithm = config.get_string("quant_algo");
  for (char& c : algorithm) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  if (algorithm == "FP8") return every_linear(fp8_tensor_scheme(), kF8StaticTensor);
  if (algorithm == "FP8_PER_CHANNEL_PER_TOKEN") return every_linear(fp8_channel_scheme(), kF8DynamicToken);
  // "Weight only" by its name; as in other engines activations are quantised by 128 channels too.
  if (algorithm == "FP8_PB_WO") return every_linear(fp8_block_scheme(), kF8DynamicGroup);
  unsupported(config, "quant_algo", "FP8, FP8_PER_CHANNEL_PER_TOKEN or FP8_PB_WO");
}

std::optional<KvCacheQuant> read_kv_cache(const JsonObject& config) {
  if (const Json* algorithm = config.find_raw("kv_cache_quant_algo"); algorithm != nullptr) {
    if (*algorithm != "FP8") unsupported(config, "kv_cache_quant_algo", "\"FP8\"");
    return KvCacheQuant{.by_default = true};
  }
  const Json* scheme = config.find_raw("kv_cache_scheme");
  if (scheme == nullptr) return std::nullopt;
  if (scheme->is_object()) {
    const JsonObject object(*scheme, config.where() + ": kv_cache_scheme");
    if (object.get_int("num_bits") != 8) unsupported(object, "num_bits", "8");
    if (object.get_string("type") != "float") unsupported(object, "type", "\"float\"");
  } else if (*scheme != "FP8") {
    unsupported(config, "kv_cache_scheme", "\"FP8\"");
  }
  return KvCacheQuant{.by_default = true};
}

}  // namespace

CheckpointQuant read_modelopt(const JsonObject& outer) {
  const Json* nested = outer.find_raw("quantization");
  const JsonObject config(nested != nullptr ? *nested : outer.json(),
                          nested != nullptr ? outer.where() + ": quantization" : outer.where());
  constexpr std::array<std::string_view, 10> kKnown = {
      "quant_method",    "quant_algo", "config_groups",       "ignore",     "exclude_modules",
      "kv_cache_scheme", "producer",   "kv_cache_quant_algo", "group_size", "quantization"};
  warn_of_unknown_keys(config, kKnown);
  CheckpointQuant quant{.dialect = "ModelOpt", .groups = {}, .ignore = {}, .kv_cache = read_kv_cache(config)};
  quant.groups.push_back(read_algorithm(config));
  for (const std::string_view key : {"exclude_modules", "ignore"}) {
    for (ModulePattern& pattern : read_modules(config, key, ModulePattern::Dialect::kWildcard))
      quant.ignore.push_back(pattern);
  }
  return quant;
}

}  // namespace octet
