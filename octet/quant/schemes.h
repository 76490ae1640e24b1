// The schemes, each defined in the file of its name; scheme.cc lists them.
#pragma once

#include "octet/quant/scheme.h"

namespace octet {

const QuantScheme& bf16_scheme();
const QuantScheme& f16_scheme();
const QuantScheme& f32_scheme();
const QuantScheme& fp8_block_scheme();
const QuantScheme& fp8_channel_scheme();
const QuantScheme& fp8_tensor_scheme();
const QuantScheme& int8_channel_scheme();
const QuantScheme& int8_tensor_scheme();

}  // namespace octet
