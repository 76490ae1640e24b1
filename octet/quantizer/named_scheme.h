// The schemes under the names by which users choose them: what weights become and what activations are quantised to.
//   fp8           E4M3, one scale per tensor, shared by q, k, v and by gate, up; activations static per tensor, or
//                 dynamic per token
//   fp8_channel   E4M3, one scale per output channel; activations dynamic per token. fp8_dynamic is the same
//   fp8_block     E4M3, one scale per 128 x 128; activations dynamic per 128 channels of a token
//   int8          8-bit integers, one scale per output channel; activations dynamic per token
//   w8a16         E4M3, one scale per output channel; activations stay as they are
#pragma once

#include <string>

#include "octet/quant/scheme.h"

namespace octet {

struct NamedScheme {
  std::string name;
  const QuantScheme* weights = nullptr;
  QuantFormat activation;

  bool static_activations() const {
    return activation.granularity == Granularity::kTensor && activation.quantized() && !activation.dynamic;
  }
};

// activation_scheme: "static", "dynamic" or "", which is dynamic. Throws Error{kUsage}.
NamedScheme named_scheme(const std::string& name, const std::string& activation_scheme);

}  // namespace octet
