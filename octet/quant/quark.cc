// quant_method "quark" (AMD Quark): one specification for the weights, inputs and outputs of all linears, and others
// for layers that patterns name.
#include <algorithm>
#include <array>
#include <optional>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

// How a tensor is quantised, as far as it says what is stored.
struct TensorSpec {
  bool is_float = false;
  bool symmetric = true;
  bool dynamic = false;
  std::string scheme;  // "per_tensor", "per_channel", "per_token", "per_group", "per_block"
};

JsonObject inner(const JsonObject& object, std::string_view key) {
  return JsonObject(object.json().at(std::string(key)), fmt::format("{}: {}", object.where(), key));
}

bool is_set(const JsonObject& object, std::string_view key) {
  const Json* value = object.find_raw(key);
  return value != nullptr && !value->empty();
}

TensorSpec read_spec(const JsonObject& object) {
  constexpr std::array<std::string_view, 14> kKnown = {"dtype",
                                                       "qscheme",
                                                       "is_dynamic",
                                                       "symmetric",
                                                       "ch_axis",
                                                       "group_size",
                                                       "block_size",
                                                       "observer_cls",
                                                       "round_method",
                                                       "scale_type",
                                                       "is_scale_quant",
                                                       "scale_format",
                                                       "scale_calculation_mode",
                                                       "mx_element_dtype"};
  warn_of_unknown_keys(object, kKnown);
  TensorSpec spec;
  const std::string dtype = object.get_string("dtype");
  if (dtype != "fp8_e4m3" && dtype != "int8") unsupported(object, "dtype", "\"fp8_e4m3\" or \"int8\"");
  spec.is_float = dtype == "fp8_e4m3";
  spec.scheme = object.get_string("qscheme");
  spec.dynamic = object.find_bool("is_dynamic").value_or(false);
  spec.symmetric = spec.is_float || object.find_bool("symmetric").value_or(true);
  const Json* scale = object.find_raw("scale_format");
  if (scale != nullptr && *scale != "float" && *scale != "float32") unsupported(object, "scale_format", "\"float32\"");
  return spec;
}

const QuantScheme& weight_scheme(const JsonObject& object, const TensorSpec& spec) {
  if (spec.dynamic) unsupported(object, "is_dynamic", "false for weights");
  if (!spec.symmetric) unsupported(object, "symmetric", "true: zero points of weights");
  if (spec.scheme == "per_tensor") return spec.is_float ? fp8_tensor_scheme() : int8_tensor_scheme();
  if (spec.scheme == "per_channel") {
    if (object.find_int("ch_axis").value_or(0) != 0) unsupported(object, "ch_axis", "0 for weights");
    return spec.is_float ? fp8_channel_scheme() : int8_channel_scheme();
  }
  if (spec.scheme == "per_block" && spec.is_float) {
    if (object.json().value("block_size", Json()) != Json::array({128, 128}))
      unsupported(object, "block_size", "[128, 128]");
    return fp8_block_scheme();
  }
  unsupported(object, "qscheme", "\"per_tensor\", \"per_channel\" or (fp8_e4m3) \"per_block\"");
}

QuantFormat input_format(const JsonObject& object, const TensorSpec& spec, const TensorSpec& weight) {
  if (spec.is_float != weight.is_float) unsupported(object, "dtype", "that of the weights");
  QuantFormat format;
  if (spec.scheme == "per_group" && spec.dynamic && spec.is_float) {
    if (object.find_int("group_size").value_or(0) != 128) unsupported(object, "group_size", "128");
    format = kF8DynamicGroup;
  } else if (spec.dynamic && spec.scheme != "per_group" && spec.scheme != "per_block") {
    // Channels of an input are its tokens; what is dynamic runs per token in every engine.
    if (spec.scheme == "per_channel" && object.find_int("ch_axis").value_or(1) == 0)
      unsupported(object, "ch_axis", "1");
    format = spec.is_float ? kF8DynamicToken : kI8DynamicToken;
  } else if (!spec.dynamic && spec.scheme == "per_tensor") {
    format = spec.is_float ? kF8StaticTensor : kI8StaticTensor;
  } else {
    unsupported(object, "qscheme",
                "\"per_tensor\", or dynamic \"per_token\", \"per_channel\" or (fp8_e4m3) \"per_group\"");
  }
  format.zero_point = !spec.symmetric;
  return format;
}

// Outputs are quantised where they go to the KV cache, by the scales beside k_proj and v_proj.
void check_cache_output(const JsonObject& output) {
  const TensorSpec spec = read_spec(output);
  if (!spec.is_float) unsupported(output, "dtype", "\"fp8_e4m3\" for the KV cache");
  if (spec.dynamic) unsupported(output, "is_dynamic", "false for the KV cache");
  if (spec.scheme != "per_tensor") unsupported(output, "qscheme", "\"per_tensor\" for the KV cache");
}

bool is_of_cache(std::string_view pattern) { return pattern.ends_with("k_proj") || pattern.ends_with("v_proj"); }

// Nothing when the weights are not quantised. `pattern`: of the layers that it is for, empty for all.
std::optional<LinearScheme> read_layer(const JsonObject& object, std::string_view pattern, CheckpointQuant& quant) {
  constexpr std::array<std::string_view, 5> kKnown = {"weight", "input_tensors", "output_tensors", "bias",
                                                      "target_device"};
  warn_of_unknown_keys(object, kKnown);
  if (is_set(object, "bias")) unsupported(object, "bias", "null");
  if (is_set(object, "output_tensors")) {
    if (!is_of_cache(pattern)) unsupported(object, "output_tensors", "null but for k_proj and v_proj");
    check_cache_output(inner(object, "output_tensors"));
    quant.kv_cache.emplace();
  }
  if (!is_set(object, "weight")) return std::nullopt;
  const JsonObject weight_object = inner(object, "weight");
  const TensorSpec weight = read_spec(weight_object);
  const QuantScheme& scheme = weight_scheme(weight_object, weight);
  LinearScheme linear{.on_disk = &scheme, .in_memory = &scheme, .activation = plain_format(DType::kF32)};
  if (is_set(object, "input_tensors")) {
    const JsonObject input = inner(object, "input_tensors");
    linear.activation = input_format(input, read_spec(input), weight);
  }
  return linear;
}

void read_layers(const JsonObject& layers, CheckpointQuant& quant) {
  for (const auto& [pattern, value] : layers.json().items()) {
    const JsonObject object(value, fmt::format("{}: {}", layers.where(), pattern));
    const std::optional<LinearScheme> scheme = read_layer(object, pattern, quant);
    ModulePattern modules(pattern, ModulePattern::Dialect::kWildcard);
    if (scheme) {
      quant.groups.push_back({.modules = {std::move(modules)}, .every_linear = false, .scheme = *scheme});
    } else {
      quant.ignore.push_back(std::move(modules));
    }
  }
}

// What was done to the weights before they were rounded is no business of a reader, but rotations need their other
// half.
void check_algorithms(const JsonObject& config) {
  if (!is_set(config, "algo_config")) return;
  const Json* found = config.find_raw("algo_config");
  const Json algorithms = found->is_array() ? *found : Json::array({*found});
  for (const Json& algorithm : algorithms) {
    std::string name = algorithm.is_object() && algorithm.contains("name") && algorithm["name"].is_string()
                           ? algorithm["name"].get<std::string>()
                           : std::string();
    constexpr std::array<std::string_view, 6> kWeightsOnly = {
        "awq", "gptq", "smooth", "smoothquant", "autosmoothquant", "gptaq"};
    if (std::find(kWeightsOnly.begin(), kWeightsOnly.end(), name) == kWeightsOnly.end())
      unsupported(config, "algo_config", "awq, gptq or smooth");
  }
}

void read_export(const JsonObject& config, CheckpointQuant& quant) {
  if (!is_set(config, "export")) return;
  const JsonObject object = inner(config, "export");
  constexpr std::array<std::string_view, 5> kKnown = {"kv_cache_group", "pack_method", "weight_format", "min_kv_scale",
                                                      "weight_merge_groups"};
  warn_of_unknown_keys(object, kKnown);
  const Json* format = object.find_raw("weight_format");
  if (format != nullptr && *format != "real_quantized") unsupported(object, "weight_format", "\"real_quantized\"");
  for (const ModulePattern& pattern : read_modules(object, "kv_cache_group", ModulePattern::Dialect::kWildcard)) {
    if (!is_of_cache(pattern.text())) unsupported(object, "kv_cache_group", "patterns of k_proj and v_proj");
    quant.kv_cache.emplace();
  }
}

}  // namespace

CheckpointQuant read_quark(const JsonObject& config) {
  constexpr std::array<std::string_view, 13> kKnown = {"quant_method",
                                                       "quant_mode",
                                                       "global_quant_config",
                                                       "layer_quant_config",
                                                       "layer_type_quant_config",
                                                       "exclude",
                                                       "algo_config",
                                                       "export",
                                                       "softmax_quant_spec",
                                                       "kv_cache_quant_config",
                                                       "version",
                                                       "quark_version",
                                                       "kv_cache_post_rope"};
  warn_of_unknown_keys(config, kKnown);
  CheckpointQuant quant{.dialect = "Quark", .groups = {}, .ignore = {}, .kv_cache = {}};
  quant.ignore = read_modules(config, "exclude", ModulePattern::Dialect::kWildcard);
  check_algorithms(config);
  read_export(config, quant);
  if (is_set(config, "softmax_quant_spec")) unsupported(config, "softmax_quant_spec", "null");
  if (is_set(config, "layer_quant_config")) read_layers(inner(config, "layer_quant_config"), quant);
  if (is_set(config, "kv_cache_quant_config")) {
    const JsonObject layers = inner(config, "kv_cache_quant_config");
    for (const auto& [pattern, value] : layers.json().items())
      read_layer(JsonObject(value, fmt::format("{}: {}", layers.where(), pattern)), pattern, quant);
  }
  if (is_set(config, "layer_type_quant_config")) {
    const JsonObject types = inner(config, "layer_type_quant_config");
    if (types.json().size() != 1 || !types.json().contains("Linear"))
      unsupported(config, "layer_type_quant_config", "none, or one for \"Linear\"");
    if (const auto scheme = read_layer(inner(types, "Linear"), "", quant))
      quant.groups.push_back({.modules = {}, .every_linear = true, .scheme = *scheme});
    return quant;
  }
  if (!is_set(config, "global_quant_config")) unsupported(config, "global_quant_config", "an object");
  if (const auto scheme = read_layer(inner(config, "global_quant_config"), "", quant))
    quant.groups.push_back({.modules = {}, .every_linear = true, .scheme = *scheme});
  return quant;
}

}  // namespace octet
