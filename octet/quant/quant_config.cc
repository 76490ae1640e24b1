#include "octet/quant/quant_config.h"

#include <algorithm>
#include <array>

#include "octet/base/error.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

constexpr std::string_view kWhere = "config.json: quantization_config";
constexpr std::string_view kSupported =
    "octet reads quant_method \"fp8\" with one scale per tensor (AutoFP8), and quantises plain checkpoints while "
    "loading";

bool is_lm_head(std::string_view module) { return module == "lm_head" || module.ends_with(".lm_head"); }

bool is_null(const Json* value) { return value == nullptr || value->is_null(); }

std::vector<ModulePattern> read_module_list(const JsonObject& config, std::string_view key) {
  std::vector<ModulePattern> patterns;
  const Json* list = config.find_raw(key);
  if (is_null(list)) return patterns;
  if (!list->is_array()) fail(ErrorCode::kModel, "{}: {}: expected a list of module names", kWhere, key);
  for (const Json& entry : *list) {
    if (!entry.is_string())
      fail(ErrorCode::kModel, "{}: {}: expected module names, found {}", kWhere, key, entry.dump());
    patterns.emplace_back(entry.get_ref<const std::string&>());
  }
  return patterns;
}

const QuantScheme* online_scheme(const std::string& name) {
  if (name == "fp8" || name == "fp8_channel") return &fp8_channel_scheme();
  if (name == "fp8_tensor") return &fp8_tensor_scheme();
  fail(ErrorCode::kUnsupported, "quantization \"{}\": octet has fp8 (= fp8_channel), fp8_channel, fp8_tensor", name);
}

}  // namespace

QuantFormat LinearScheme::activation_format() const {
  const QuantFormat format = in_memory->activation_format();
  return format.quantized() && activation == ActivationScale::kStatic ? kF8StaticTensor : format;
}

QuantConfig::QuantConfig(const Json* quantization_config, const QuantOptions& options, DType plain_dtype)
    : plain_(find_scheme(dtype_name(plain_dtype))) {
  OCTET_CHECK(plain_ != nullptr && !plain_->weight_format().quantized());
  if (!is_null(quantization_config)) {
    const JsonObject config(*quantization_config, std::string(kWhere));
    const std::string method = config.get_string("quant_method");
    if (method != "fp8")
      fail(ErrorCode::kUnsupported, "{}: quant_method \"{}\" is not supported; {}", kWhere, method, kSupported);
    read_fp8_dialect(*quantization_config);
  }
  choose_online(options);
}

void QuantConfig::read_fp8_dialect(const Json& object) {
  const JsonObject config(object, std::string(kWhere));
  constexpr std::array<std::string_view, 4> kKnown = {"quant_method", "activation_scheme", "ignored_layers",
                                                      "modules_to_not_convert"};
  for (const auto& [key, value] : object.items()) {
    if (value.is_null() || std::find(kKnown.begin(), kKnown.end(), key) != kKnown.end()) continue;
    if (key == "fmt" && (value == "e4m3" || value == "float8_e4m3fn")) continue;
    fail(ErrorCode::kUnsupported, "{}: {} = {} is not supported; {}", kWhere, key, value.dump(), kSupported);
  }
  const std::string activation = config.get_string("activation_scheme");
  if (activation != "static" && activation != "dynamic") {
    fail(ErrorCode::kUnsupported, "{}: activation_scheme \"{}\" is not supported, expected \"static\" or \"dynamic\"",
         kWhere, activation);
  }
  stored_ = &fp8_tensor_scheme();
  activation_ =
      activation == "static" ? LinearScheme::ActivationScale::kStatic : LinearScheme::ActivationScale::kDynamic;
  ignore_ = read_module_list(config, "ignored_layers");
  for (ModulePattern& pattern : read_module_list(config, "modules_to_not_convert"))
    ignore_.push_back(std::move(pattern));
}

void QuantConfig::choose_online(const QuantOptions& options) {
  const QuantScheme* chosen = options.quantization.empty() ? nullptr : online_scheme(options.quantization);
  if (stored_ != nullptr) {
    if (chosen != nullptr && chosen != stored_ && options.quantization != "fp8") {
      fail(ErrorCode::kModel, "quantization \"{}\": the checkpoint is already quantised, as {}", options.quantization,
           stored_->name());
    }
    if (!options.ignore.empty()) {
      fail(ErrorCode::kModel, "ignore \"{}\": the checkpoint is already quantised (its own ignored_layers apply)",
           options.ignore.front());
    }
  } else {
    online_ = chosen;
    for (const std::string& entry : options.ignore) ignore_.emplace_back(entry);
    if (!options.ignore.empty() && online_ == nullptr) {
      fail(ErrorCode::kUsage, "ignore \"{}\": nothing is quantised; say which quantization", options.ignore.front());
    }
  }
  lm_head_ = plain_;
  if (!options.quantize_lm_head) return;
  if (online_ == nullptr && stored_ == nullptr)
    fail(ErrorCode::kUsage, "quantize_lm_head: nothing is quantised; say which quantization");
  lm_head_ = online_ != nullptr ? online_ : &fp8_channel_scheme();
}

LinearScheme QuantConfig::scheme_for(std::string_view module) const {
  // No known producer of the dialect quantises lm_head, whether or not its list says so.
  if (is_lm_head(module)) return {.on_disk = plain_, .in_memory = lm_head_};
  const bool ignored =
      std::any_of(ignore_.begin(), ignore_.end(), [&](const ModulePattern& p) { return p.matches(module); });
  if (ignored) return {.on_disk = plain_, .in_memory = plain_};
  if (stored_ != nullptr) return {.on_disk = stored_, .in_memory = stored_, .activation = activation_};
  return {.on_disk = plain_, .in_memory = online_ != nullptr ? online_ : plain_};
}

std::string QuantConfig::description() const {
  if (stored_ == nullptr && online_ == nullptr) return std::string(plain_->name());
  const bool is_static = activation_ == LinearScheme::ActivationScale::kStatic;
  std::string text = fmt::format("{}, {}, activations {}; lm_head {}", (stored_ != nullptr ? stored_ : online_)->name(),
                                 stored_ != nullptr ? "as stored (AutoFP8)" : "quantised while loading",
                                 is_static ? "static per tensor" : "dynamic per token", lm_head_->name());
  size_t num_others = 0;
  for (const ModulePattern& pattern : ignore_) num_others += is_lm_head(pattern.text()) ? 0 : 1;
  if (num_others > 0)
    text += fmt::format("; {} {} left {}", num_others, num_others == 1 ? "entry" : "entries", plain_->name());
  return text;
}

}  // namespace octet
