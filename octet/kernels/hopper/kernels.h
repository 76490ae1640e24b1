// Hopper's rows; each in the file of its name.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

Kernel<PagedAttentionOp> hopper_attention_decode();
Kernel<PagedAttentionOp> hopper_attention_prefill();

}  // namespace octet
