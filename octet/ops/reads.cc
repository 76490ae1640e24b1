#include <fmt/format.h>

#include "octet/ops/ops.h"

namespace octet {

OpReads reads_of(const MatmulOp& op) {
  return {.shape = op.weight.data.shape.to_string(), .bytes = op.weight.num_bytes()};
}

OpReads reads_of(const PagedAttentionOp& op) {
  return {.shape = {},
          .bytes = 0,
          .bytes_per_cached_token = 2 * op.num_kv_heads() * op.head_dim() * dtype_bytes(op.k_cache.dtype)};
}

}  // namespace octet
