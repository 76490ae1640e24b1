// The quantiser: a checkpoint in real numbers to one in 8 bits, tensor by tensor from the mapped files, so that memory
// holds one unit of linears at a time.
#pragma once

#include "octet/quantizer/options.h"

namespace octet {

// Writes options.out_folder, which appears when it is whole. An interrupted run, killed at any moment or out of disk,
// is continued with options.resume, and gives the same bytes as one that was not.
// Throws Error{kUsage}, Error{kModel}, Error{kIo}: see docs/quantize.md for what is refused.
QuantizeReport quantize_checkpoint(const QuantizeOptions& options);

}  // namespace octet
