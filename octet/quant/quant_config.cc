#include "octet/quant/quant_config.h"

#include <algorithm>
#include <set>

#include "octet/base/error.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

bool is_lm_head(std::string_view module) { return module == "lm_head" || module.ends_with(".lm_head"); }

const QuantScheme* online_scheme(const std::string& name) {
  if (name == "fp8" || name == "fp8_channel") return &fp8_channel_scheme();
  if (name == "fp8_tensor") return &fp8_tensor_scheme();
  if (name == "fp8_block") return &fp8_block_scheme();
  if (name == "int8" || name == "int8_channel") return &int8_channel_scheme();
  fail(ErrorCode::kUnsupported,
       "quantization \"{}\": octet has fp8 (= fp8_channel), fp8_channel, fp8_tensor, fp8_block, int8", name);
}

// The schemes of a checkpoint's groups, by name.
std::string scheme_names(const CheckpointQuant& quant) {
  std::set<std::string_view> names;
  for (const QuantGroup& group : quant.groups) names.insert(group.scheme.on_disk->name());
  std::string text;
  for (const std::string_view name : names) text += (text.empty() ? "" : " and ") + std::string(name);
  return text.empty() ? "plain" : text;
}

std::string activation_words(const QuantFormat& format) {
  if (!format.quantized()) return "not quantised";
  if (format.granularity == Granularity::kTensor) return "static per tensor";
  if (format.granularity == Granularity::kToken) return "dynamic per token";
  return fmt::format("dynamic per group of {}", format.group_cols);
}

}  // namespace

QuantConfig::QuantConfig(const Json* quantization_config, const QuantOptions& options, DType plain_dtype)
    : plain_(find_scheme(dtype_name(plain_dtype))) {
  OCTET_CHECK(plain_ != nullptr && !plain_->weight_format().quantized());
  if (quantization_config != nullptr && !quantization_config->is_null()) {
    stored_ = read_dialect(*quantization_config);
    kv_cache_ = stored_->kv_cache;
  }
  choose_online(options);
}

void QuantConfig::choose_online(const QuantOptions& options) {
  const QuantScheme* chosen = options.quantization.empty() ? nullptr : online_scheme(options.quantization);
  if (stored_) {
    const bool same = std::any_of(stored_->groups.begin(), stored_->groups.end(),
                                  [&](const QuantGroup& group) { return group.scheme.on_disk == chosen; });
    if (chosen != nullptr && !same && options.quantization != "fp8") {
      fail(ErrorCode::kModel, "quantization \"{}\": the checkpoint is already quantised, as {}", options.quantization,
           scheme_names(*stored_));
    }
    if (!options.ignore.empty()) {
      fail(ErrorCode::kModel, "ignore \"{}\": the checkpoint is already quantised (its own list applies)",
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
  if (online_ == nullptr && !stored_)
    fail(ErrorCode::kUsage, "quantize_lm_head: nothing is quantised; say which quantization");
  lm_head_ = online_ != nullptr ? online_ : &fp8_channel_scheme();
}

LinearScheme QuantConfig::scheme_for(std::string_view module, std::optional<DType> stored) const {
  const QuantGroup* group = stored_ ? stored_->group_of(module) : nullptr;
  if (is_lm_head(module)) {
    // Lists often leave it out although it is plain: the file tells.
    const bool in_8_bits = stored && dtype_bytes(*stored) == 1;
    if (group != nullptr && in_8_bits) return group->scheme;
    return {.on_disk = plain_, .in_memory = lm_head_, .activation = lm_head_->activation_format()};
  }
  if (stored_) return group != nullptr ? group->scheme : plain();
  if (online_ == nullptr || matches_any(ignore_, module)) return plain();
  return {.on_disk = plain_, .in_memory = online_, .activation = online_->activation_format()};
}

std::string QuantConfig::description() const {
  if (!stored_ && online_ == nullptr) return std::string(plain_->name());
  const QuantFormat activation = !stored_                  ? online_->activation_format()
                                 : stored_->groups.empty() ? QuantFormat{}
                                                           : stored_->groups.front().scheme.activation;
  std::string text =
      fmt::format("{}, {}, activations {}; lm_head {}", stored_ ? scheme_names(*stored_) : std::string(online_->name()),
                  stored_ ? fmt::format("as stored ({})", stored_->dialect) : "quantised while loading",
                  activation_words(activation), lm_head_->name());
  size_t num_others = 0;
  for (const ModulePattern& pattern : stored_ ? stored_->ignore : ignore_)
    num_others += is_lm_head(pattern.text()) ? 0 : 1;
  if (num_others > 0)
    text += fmt::format("; {} {} left {}", num_others, num_others == 1 ? "entry" : "entries", plain_->name());
  return text;
}

}  // namespace octet
