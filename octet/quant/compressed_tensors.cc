// quant_method "compressed-tensors" (llm-compressor): groups of modules, each with the arguments of its weights and of
// its input activations.
#include <array>
#include <charconv>
#include <optional>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

// QuantizationArgs, as far as they say what is stored.
struct Arguments {
  bool is_float = false;
  bool symmetric = true;
  bool dynamic = false;
  std::string strategy;  // "tensor", "channel", "group", "block", "token", "attn_head"
  int64_t group_size = 0;
  int32_t block_rows = 0, block_cols = 0;
};

constexpr std::array<std::string_view, 15> kArguments = {"num_bits", "type",       "symmetric",          "dynamic",
                                                         "strategy", "group_size", "block_structure",    "actorder",
                                                         "observer", "zp_dtype",   "observer_kwargs",    "scale_dtype",
                                                         "format",   "is_mx",      "requires_zero_point"};

// [128, 128], or "128x128" in older files.
void read_block(const JsonObject& object, Arguments& arguments) {
  const Json* block = object.find_raw("block_structure");
  std::array<int64_t, 2> sides = {};
  if (block != nullptr && block->is_string()) {
    const auto& text = block->get_ref<const std::string&>();
    const char* end = text.data() + text.size();
    const auto rows = std::from_chars(text.data(), end, sides[0]);
    const bool has_columns = rows.ec == std::errc() && rows.ptr != end && *rows.ptr == 'x';
    if (!has_columns || std::from_chars(rows.ptr + 1, end, sides[1]).ptr != end) sides = {};
  } else if (block != nullptr && block->is_array() && block->size() == 2) {
    for (size_t i = 0; i < 2; ++i) sides[i] = (*block)[i].is_number_integer() ? (*block)[i].get<int64_t>() : 0;
  }
  if (sides[0] <= 0 || sides[1] <= 0 || sides[0] > kMaxTileSide || sides[1] > kMaxTileSide)
    unsupported(object, "block_structure", "two sides, such as [128, 128]");
  arguments.block_rows = static_cast<int32_t>(sides[0]);
  arguments.block_cols = static_cast<int32_t>(sides[1]);
}

Arguments read_arguments(const JsonObject& object) {
  warn_of_unknown_keys(object, kArguments);
  Arguments arguments;
  if (object.find_int("num_bits").value_or(8) != 8) unsupported(object, "num_bits", "8");
  const std::string type = object.find_string("type").value_or("int");
  if (type != "float" && type != "int") unsupported(object, "type", "\"float\" or \"int\"");
  arguments.is_float = type == "float";
  arguments.symmetric = object.find_bool("symmetric").value_or(true);
  const Json* dynamic = object.find_raw("dynamic");
  if (dynamic != nullptr && !dynamic->is_boolean()) unsupported(object, "dynamic", "true or false");
  arguments.dynamic = dynamic != nullptr && dynamic->get<bool>();
  arguments.group_size = object.find_int("group_size").value_or(0);
  const std::string_view inferred =
      arguments.group_size == 0 ? "tensor" : (arguments.group_size < 0 ? "channel" : "group");
  arguments.strategy = object.find_string("strategy").value_or(std::string(inferred));
  if (arguments.strategy == "block") read_block(object, arguments);
  if (arguments.strategy == "group" && (arguments.group_size <= 0 || arguments.group_size > kMaxTileSide))
    unsupported(object, "group_size", "a number above 0");
  // "weight" (or "static") is how GPTQ went over the columns, and moves none of them.
  const Json* order = object.find_raw("actorder");
  if (order != nullptr && *order != false && *order != "weight" && *order != "static")
    unsupported(object, "actorder", "null, \"weight\" or \"static\"");
  return arguments;
}

const QuantScheme& weight_scheme(const JsonObject& object, const Arguments& weights, CheckpointQuant& quant) {
  if (!weights.symmetric) unsupported(object, "symmetric", "true: zero points of weights");
  if (weights.dynamic) unsupported(object, "dynamic", "false for weights");
  if (weights.strategy == "tensor") return weights.is_float ? fp8_tensor_scheme() : int8_tensor_scheme();
  if (weights.strategy == "channel") return weights.is_float ? fp8_channel_scheme() : int8_channel_scheme();
  if (weights.strategy == "block" && weights.is_float) {
    return tile_scheme(quant, {.dtype = DType::kF8E4M3,
                               .granularity = Granularity::kBlock,
                               .group_rows = weights.block_rows,
                               .group_cols = weights.block_cols});
  }
  if (weights.strategy == "group") {
    return tile_scheme(quant, {.dtype = weights.is_float ? DType::kF8E4M3 : DType::kI8,
                               .granularity = Granularity::kGroup,
                               .group_cols = static_cast<int32_t>(weights.group_size)});
  }
  unsupported(object, "strategy", "\"tensor\", \"channel\", \"group\" or (float) \"block\"");
}

// What is dynamic is quantised per token, whether the file says tensor or token, as every engine does.
QuantFormat input_format(const JsonObject& object, const Arguments& input, const Arguments& weights) {
  if (input.is_float != weights.is_float)
    unsupported(object, "type", weights.is_float ? "\"float\", as the weights" : "\"int\", as the weights");
  if (input.is_float && !input.symmetric) unsupported(object, "symmetric", "true for float");
  QuantFormat format;
  if (input.strategy == "group" && input.dynamic && input.is_float) {
    format = kF8DynamicGroup;
    format.group_cols = read_input_group(object, "group_size", input.group_size);
    const int64_t columns = weights.strategy == "block"   ? weights.block_cols
                            : weights.strategy == "group" ? weights.group_size
                                                          : input.group_size;
    if (columns != input.group_size) unsupported(object, "group_size", fmt::format("{}, as the weights", columns));
  } else if (input.dynamic && (input.strategy == "token" || input.strategy == "tensor")) {
    format = input.is_float ? kF8DynamicToken : kI8DynamicToken;
  } else if (!input.dynamic && input.strategy == "tensor") {
    format = input.is_float ? kF8StaticTensor : kI8StaticTensor;
  } else {
    unsupported(object, "strategy", "\"token\" (dynamic), \"tensor\" or (dynamic float) \"group\"");
  }
  format.zero_point = !input.symmetric;
  return format;
}

void check_format(const JsonObject& object, bool mixed_allowed) {
  const std::optional<std::string> format = object.find_string("format");
  if (!format) return;
  for (const std::string_view known : {"float-quantized", "int-quantized", "naive-quantized", "dense"}) {
    if (*format == known) return;
  }
  if (mixed_allowed && *format == "mixed-precision") return;
  unsupported(object, "format", "float-quantized, int-quantized or naive-quantized");
}

// Nothing for a group that only says how attention is quantised.
std::optional<QuantGroup> read_group(const JsonObject& object, CheckpointQuant& quant) {
  constexpr std::array<std::string_view, 5> kKnown = {"targets", "weights", "input_activations", "output_activations",
                                                      "format"};
  warn_of_unknown_keys(object, kKnown);
  QuantGroup group;
  bool attention_only = true;
  for (ModulePattern& target : read_modules(object, "targets", ModulePattern::Dialect::kMatch)) {
    const bool is_class = target.text() == "Linear";
    group.every_linear = group.every_linear || is_class;
    attention_only = attention_only && target.text().ends_with("Attention");
    if (!is_class) group.modules.push_back(std::move(target));
  }
  if (group.modules.empty() && !group.every_linear) unsupported(object, "targets", "names of modules or \"Linear\"");
  if (attention_only) return std::nullopt;
  check_format(object, false);
  if (object.find_raw("output_activations") != nullptr) unsupported(object, "output_activations", "null");
  const Json* weights = object.find_raw("weights");
  if (weights == nullptr) unsupported(object, "weights", "an object");
  const JsonObject weight_object(*weights, object.where() + ": weights");
  const Arguments weight = read_arguments(weight_object);
  const QuantScheme& scheme = weight_scheme(weight_object, weight, quant);
  group.scheme = {.on_disk = &scheme, .in_memory = &scheme, .activation = plain_format(DType::kF32)};
  if (const Json* input = object.find_raw("input_activations"); input != nullptr) {
    const JsonObject input_object(*input, object.where() + ": input_activations");
    group.scheme.activation = input_format(input_object, read_arguments(input_object), weight);
  }
  return group;
}

std::optional<KvCacheQuant> read_kv_cache(const JsonObject& config) {
  const Json* scheme = config.find_raw("kv_cache_scheme");
  if (scheme == nullptr) return std::nullopt;
  const JsonObject object(*scheme, config.where() + ": kv_cache_scheme");
  const Arguments arguments = read_arguments(object);
  if (!arguments.is_float) unsupported(object, "type", "\"float\"");
  if (!arguments.symmetric) unsupported(object, "symmetric", "true");
  if (arguments.dynamic) unsupported(object, "dynamic", "false");
  if (arguments.strategy != "tensor" && arguments.strategy != "attn_head")
    unsupported(object, "strategy", "\"tensor\" or \"attn_head\"");
  return KvCacheQuant{.per_head = arguments.strategy == "attn_head", .by_default = true};
}

void check_transforms(const JsonObject& config) {
  if (const Json* transforms = config.find_raw("transform_config"); transforms != nullptr && !transforms->empty())
    unsupported(config, "transform_config", "none");
  const Json* sparsity = config.find_raw("sparsity_config");
  if (sparsity == nullptr || sparsity->empty()) return;
  if (!sparsity->is_object() || sparsity->value("format", Json()) != "dense")
    unsupported(config, "sparsity_config", "none");
}

}  // namespace

CheckpointQuant read_compressed_tensors(const JsonObject& config) {
  constexpr std::array<std::string_view, 10> kKnown = {
      "quant_method",    "format",        "quantization_status", "global_compression_ratio", "ignore",
      "kv_cache_scheme", "config_groups", "sparsity_config",     "transform_config",         "version"};
  warn_of_unknown_keys(config, kKnown);
  check_format(config, true);
  check_transforms(config);
  CheckpointQuant quant{.dialect = "compressed-tensors", .groups = {}, .ignore = {}, .kv_cache = read_kv_cache(config)};
  quant.ignore = read_modules(config, "ignore", ModulePattern::Dialect::kMatch);
  const Json* groups = config.find_raw("config_groups");
  if (groups == nullptr || !groups->is_object())
    fail(ErrorCode::kModel, "{}: config_groups: expected an object of groups", config.where());
  for (const auto& [name, value] : groups->items()) {
    const JsonObject object(value, fmt::format("{}: config_groups: {}", config.where(), name));
    if (std::optional<QuantGroup> group = read_group(object, quant)) quant.groups.push_back(std::move(*group));
  }
  return quant;
}

namespace {

// QuantizationArgs, all of them, as the package itself writes them.
Json written_arguments(const QuantFormat& format, std::string_view strategy) {
  const bool blocks = format.granularity == Granularity::kBlock;
  const bool groups = format.granularity == Granularity::kGroup;
  return {{"actorder", nullptr},
          {"block_structure", blocks ? Json::array({format.group_rows, format.group_cols}) : Json()},
          {"dynamic", format.dynamic},
          {"group_size", groups ? Json(format.group_cols) : Json()},
          {"num_bits", 8},
          {"observer", nullptr},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr},
          {"strategy", strategy},
          {"symmetric", !format.zero_point},
          {"type", format.dtype == DType::kI8 ? "int" : "float"},
          {"zp_dtype", nullptr}};
}

std::string_view strategy_of(Granularity granularity) {
  switch (granularity) {
    case Granularity::kChannel:
      return "channel";
    case Granularity::kToken:
      return "token";
    case Granularity::kGroup:
      return "group";
    case Granularity::kBlock:
      return "block";
    case Granularity::kNone:
    case Granularity::kTensor:
      break;
  }
  return "tensor";
}

Json written_group(const WrittenGroup& group) {
  const QuantFormat weights = group.scheme->weight_format();
  const QuantFormat& input = group.activation;
  const std::string_view format = !input.quantized()            ? "naive-quantized"
                                  : weights.dtype == DType::kI8 ? "int-quantized"
                                                                : "float-quantized";
  return {{"format", format},
          {"input_activations", input.quantized() ? written_arguments(input, strategy_of(input.granularity)) : Json()},
          {"output_activations", nullptr},
          {"targets", group.modules.empty() ? Json::array({"Linear"}) : Json(group.modules)},
          {"weights", written_arguments(weights, strategy_of(weights.granularity))}};
}

Json quantization_config(const WrittenQuant& quant) {
  Json groups = Json::object();
  for (const WrittenGroup& group : quant.groups) groups[fmt::format("group_{}", groups.size())] = written_group(group);
  // Groups that are stored alike share their format; else each has its own.
  Json format = groups.at("group_0").at("format");
  for (const auto& [name, group] : groups.items()) {
    if (group.at("format") != format) format = "mixed-precision";
  }
  Json config = {{"config_groups", groups},
                 {"format", format},
                 {"global_compression_ratio", nullptr},
                 {"ignore", quant.ignore},
                 {"kv_cache_scheme", nullptr},
                 {"quant_method", "compressed-tensors"},
                 {"quantization_status", "compressed"}};
  if (quant.kv_cache) {
    const QuantFormat cache{.dtype = quant.kv_cache->dtype, .granularity = Granularity::kTensor};
    config["kv_cache_scheme"] = written_arguments(cache, quant.kv_cache->per_head ? "attn_head" : "tensor");
  }
  return config;
}

// [1], [N, 1], or that of the blocks.
Shape scale_shape(const QuantFormat& format, int64_t n, int64_t k) {
  return format.granularity == Granularity::kChannel ? Shape{n, 1} : format.scale_shape(n, k);
}

}  // namespace

const DialectWriter& compressed_tensors_writer() {
  static const DialectWriter writer{.name = "compressed-tensors",
                                    .declines = [](const WrittenQuant&) { return std::string(); },
                                    .quantization_config = quantization_config,
                                    .weight_scale = "weight_scale",
                                    .scale_shape = scale_shape,
                                    .scalar = Shape{1}};
  return writer;
}

}  // namespace octet
