// The schemes, each defined in the file of its name; scheme.cc lists them.
#pragma once

#include <memory>

#include "octet/quant/scheme.h"

namespace octet {

const QuantScheme& bf16_scheme();
const QuantScheme& f16_scheme();
const QuantScheme& f32_scheme();
const QuantScheme& fp8_block_scheme();
// Of blocks of any size, or groups of columns of a row (f8_e4m3, i8): those of one file.
std::shared_ptr<const QuantScheme> make_tile_scheme(const QuantFormat& format);
const QuantScheme& fp8_channel_scheme();
const QuantScheme& fp8_tensor_scheme();
const QuantScheme& int8_channel_scheme();
const QuantScheme& int8_tensor_scheme();

}  // namespace octet
