// After writing: the checkpoint is opened as an engine opens it, and what it says is compared with what was to be
// written.
#pragma once

#include <string>

#include "octet/base/thread_pool.h"
#include "octet/quantizer/figures.h"
#include "octet/quantizer/plan.h"

namespace octet {

// Every tensor is there with its dtype and shape; every scale is a number above 0; the dialect, read back, finds the
// scheme of every linear; a sample of rows of each, dequantised, is near the source's, except of those that `linears`
// say are folded: what they say was run over the held-out text. Throws Error{kInternal} for what octet did wrong,
// Error{kIo} for what the disk did.
void check_written(const std::string& folder, const Json& quantization_config, const QuantizePlan& plan,
                   const SafetensorsFolder& source, std::span<const LinearFigures> linears, ThreadPool& threads);

}  // namespace octet
