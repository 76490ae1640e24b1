#include "octet/quant/dialect.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

constexpr std::string_view kSupported =
    "octet reads \"fp8\" (AutoFP8 and DeepSeek's blocks), \"compressed-tensors\", \"fbgemm_fp8\", \"modelopt\" and "
    "\"quark\", and quantises plain checkpoints while loading";

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

// ModelOpt's files may lack quant_method.
bool has_quant_algo(const JsonObject& config) {
  if (config.find_raw("quant_algo") != nullptr) return true;
  const Json* nested = config.find_raw("quantization");
  return nested != nullptr && nested->is_object() && nested->contains("quant_algo");
}

}  // namespace

QuantFormat LinearScheme::activation_format() const {
  return in_memory->weight_format().quantized() ? activation : in_memory->activation_format();
}

const QuantGroup* CheckpointQuant::group_of(std::string_view module) const {
  if (matches_any(ignore, module)) return nullptr;
  for (const QuantGroup& group : groups) {
    if (matches_any(group.modules, module)) return &group;
  }
  const auto rest = std::find_if(groups.begin(), groups.end(), [](const QuantGroup& g) { return g.every_linear; });
  return rest == groups.end() ? nullptr : &*rest;
}

CheckpointQuant read_dialect(const Json& quantization_config) {
  const JsonObject config(quantization_config, "config.json: quantization_config");
  if (config.find_raw("quant_method") == nullptr) {
    if (has_quant_algo(config)) return read_modelopt(JsonObject(quantization_config, "hf_quant_config.json"));
    if (config.find_raw("config_groups") != nullptr) return read_compressed_tensors(config);
  }
  const std::string method = lower(config.get_string("quant_method"));
  if (method == "fp8") return config.find_raw("weight_block_size") ? read_block_fp8(config) : read_autofp8(config);
  if (method == "compressed-tensors" || method == "compressed_tensors") return read_compressed_tensors(config);
  if (method == "fbgemm_fp8") return read_fbgemm_fp8(config);
  if (method == "modelopt" || method == "modelopt_fp8") return read_modelopt(config);
  if (method == "quark") return read_quark(config);
  fail(ErrorCode::kUnsupported, "{}: quant_method \"{}\" is not supported; {}", config.where(), method, kSupported);
}

const DialectWriter& find_writer(std::string_view name, const WrittenQuant& quant) {
  const Granularity granularity = quant.groups.at(0).scheme->weight_format().granularity;
  const bool blocks = granularity == Granularity::kBlock;
  const DialectWriter& fp8 = blocks ? block_fp8_writer() : autofp8_writer();
  if (name.empty()) return fp8.declines(quant).empty() ? fp8 : compressed_tensors_writer();
  if (name != "autofp8" && name != "compressed-tensors")
    fail(ErrorCode::kUsage, "dialect \"{}\": octet writes autofp8 and compressed-tensors", name);
  const DialectWriter& writer = name == "autofp8" ? fp8 : compressed_tensors_writer();
  if (const std::string reason = writer.declines(quant); !reason.empty())
    fail(ErrorCode::kUsage, "dialect \"{}\" {}", name, reason);
  return writer;
}

std::vector<ModulePattern> read_modules(const JsonObject& config, std::string_view key,
                                        ModulePattern::Dialect dialect) {
  std::vector<ModulePattern> patterns;
  const Json* list = config.find_raw(key);
  if (list == nullptr) return patterns;
  if (!list->is_array()) fail(ErrorCode::kModel, "{}: {}: expected a list of module names", config.where(), key);
  for (const Json& entry : *list) {
    if (!entry.is_string())
      fail(ErrorCode::kModel, "{}: {}: expected module names, found {}", config.where(), key, entry.dump());
    patterns.emplace_back(entry.get_ref<const std::string&>(), dialect);
  }
  return patterns;
}

void warn_of_unknown_keys(const JsonObject& config, std::span<const std::string_view> known) {
  std::string unknown;
  for (const auto& [key, value] : config.json().items()) {
    if (value.is_null() || std::find(known.begin(), known.end(), key) != known.end()) continue;
    unknown += (unknown.empty() ? "" : ", ") + key;
  }
  if (!unknown.empty()) warn_once(fmt::format("{}: not known and not heeded: {}", config.where(), unknown));
}

void unsupported(const JsonObject& config, std::string_view key, std::string_view supported) {
  const Json* value = config.find_raw(key);
  const std::string found =
      value == nullptr ? "null" : value->dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80);
  fail(ErrorCode::kUnsupported, "{}: {} = {} is not supported, expected {}", config.where(), key, found, supported);
}

const QuantScheme& tile_scheme(CheckpointQuant& quant, const QuantFormat& format) {
  if (format == kF8Block) return fp8_block_scheme();
  for (const auto& scheme : quant.own_schemes) {
    if (scheme->weight_format() == format) return *scheme;
  }
  return *quant.own_schemes.emplace_back(make_tile_scheme(format));
}

int32_t read_input_group(const JsonObject& config, std::string_view key, int64_t found) {
  constexpr int64_t kStep = 32;  // what kernels quantise at a time
  if (found <= 0 || found > kMaxTileSide || found % kStep != 0) unsupported(config, key, "a multiple of 32");
  return static_cast<int32_t>(found);
}

QuantGroup every_linear(const QuantScheme& scheme, const QuantFormat& activation) {
  return {.modules = {},
          .every_linear = true,
          .scheme = {.on_disk = &scheme, .in_memory = &scheme, .activation = activation}};
}

}  // namespace octet
