// quant_method "fbgemm_fp8" (Meta's Llama 3.1 405B): one scale per channel, activations per token with a bound on the
// magnitude that a scale is made from.
#include <array>
#include <cmath>

#include "octet/quant/dialect.h"
#include "octet/quant/schemes.h"

namespace octet {

CheckpointQuant read_fbgemm_fp8(const JsonObject& config) {
  constexpr std::array<std::string_view, 3> kKnown = {"quant_method", "activation_scale_ub", "modules_to_not_convert"};
  warn_of_unknown_keys(config, kKnown);
  QuantFormat activation = kF8DynamicToken;
  activation.amax_cap = static_cast<float>(config.get_number("activation_scale_ub"));
  if (!std::isfinite(activation.amax_cap) || activation.amax_cap <= 0.0f)
    unsupported(config, "activation_scale_ub", "a number above 0");
  CheckpointQuant quant{.dialect = "FBGEMM", .groups = {}, .ignore = {}, .kv_cache = {}};
  quant.groups.push_back(every_linear(fp8_channel_scheme(), activation));
  quant.ignore = read_modules(config, "modules_to_not_convert");
  return quant;
}

}  // namespace octet
