// The portable CUDA rows; each in the file of its name.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

Kernel<MatmulOp> cuda_matmul_simple();

}  // namespace octet
