// quantization_config: any text gives rules for modules or an octet::Error.
#include <cstdint>
#include <string_view>

#include "octet/base/error.h"
#include "octet/quant/quant_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const octet::Json json = octet::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    const octet::QuantConfig config(&json, {}, octet::DType::kBF16);
    for (const std::string_view module :
         {"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj"}) {
      const octet::LinearScheme scheme = config.scheme_for(module);
      if (scheme.on_disk == nullptr || scheme.on_disk->stored_tensors(300, 520).empty()) __builtin_trap();
      if (scheme.activation_format().to_string().empty()) __builtin_trap();
    }
    if (config.description().empty()) __builtin_trap();
  } catch (const octet::Error& error) {
    if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
