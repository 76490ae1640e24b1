// Hopper's rows.
#include "octet/kernels/gpu.h"
#include "octet/kernels/hopper/kernels.h"

namespace octet {

void add_hopper_kernels(KernelTable& table) {
  table.of<PagedAttentionOp>().push_back(hopper_attention_prefill());
  table.of<PagedAttentionOp>().push_back(hopper_attention_decode());
}

}  // namespace octet
