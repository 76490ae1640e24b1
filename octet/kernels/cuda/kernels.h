// The portable CUDA rows; each in the file of its name.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

Kernel<ArgmaxOp> cuda_argmax();
Kernel<MatmulOp> cuda_matmul_simple();
Kernel<PagedAttentionOp> cuda_attention_simple();

}  // namespace octet
