// What other tools make of a weight, so that octet's own recipes can be measured against them on the same model and
// text. They compute in the weight's dtype, BF16, where octet computes in F32:
//   AutoFP8         m = bf16(448 / amax), code = e4m3(bf16(w * m)), scale = 1 / m in F32; one per tensor
//   llm-compressor  s = bf16(amax / 448), code = e4m3(bf16(w / s)); INT8: s = bf16(amax / 127.5),
//                   code = round(bf16(w / s)) within -128 and 127; per tensor, channel or block
//   its GPTQ        the same scales; damping by 1 % of the mean of H_jj; the weights that GPTQ finds, as bf16(code *
//   s),
//                   are rounded once more when they are saved
// tests/golden/baselines has what the packages themselves compute (scripts/record_baselines.py).
#pragma once

#include "octet/base/thread_pool.h"
#include "octet/quantizer/gptq.h"
#include "octet/quantizer/recipe.h"
#include "octet/tensor/quant_format.h"

namespace octet {

// Why the recipe, which is a baseline, cannot make `format` of weights in `dtype`; empty when it can.
std::string baseline_declines(Recipe recipe, const QuantFormat& format, DType dtype);

// Codes and scales of `weight` [N, K] bf16 in out.format. `factor`: of kBaselineLlmcGptq, whose damping is by the mean.
void round_as_baseline(Recipe recipe, ConstTensor weight, const HessianFactor* factor, QuantTensor out,
                       ThreadPool& threads);

}  // namespace octet
