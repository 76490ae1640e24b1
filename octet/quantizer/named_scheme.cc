#include "octet/quantizer/named_scheme.h"

#include "octet/base/error.h"
#include "octet/quant/schemes.h"

namespace octet {

NamedScheme named_scheme(const std::string& name, const std::string& activation_scheme) {
  if (!activation_scheme.empty() && activation_scheme != "static" && activation_scheme != "dynamic")
    fail(ErrorCode::kUsage, "activation scheme \"{}\": expected static or dynamic", activation_scheme);
  const bool fixed = activation_scheme == "static";
  if (name == "fp8") return {name, &fp8_tensor_scheme(), fixed ? kF8StaticTensor : kF8DynamicToken};
  NamedScheme scheme;
  if (name == "fp8_channel" || name == "fp8_dynamic") scheme = {"fp8_channel", &fp8_channel_scheme(), kF8DynamicToken};
  if (name == "fp8_block") scheme = {name, &fp8_block_scheme(), kF8DynamicGroup};
  if (name == "int8") scheme = {name, &int8_channel_scheme(), kI8DynamicToken};
  if (name == "w8a16") scheme = {name, &fp8_channel_scheme(), plain_format(DType::kF32)};
  if (scheme.weights == nullptr) {
    fail(ErrorCode::kUsage,
         "scheme \"{}\": octet quantises to fp8, fp8_dynamic, fp8_channel, fp8_block, int8 and w8a16", name);
  }
  if (fixed)
    fail(ErrorCode::kUsage, "scheme \"{}\" has no static activations; scheme fp8 has (one scale per tensor)", name);
  if (!activation_scheme.empty() && !scheme.activation.quantized())
    fail(ErrorCode::kUsage, "scheme \"{}\" does not quantise activations, so they are not {}", name, activation_scheme);
  return scheme;
}

}  // namespace octet
