#include <fmt/format.h>

#include <algorithm>

#include "octet/ops/ops.h"

namespace octet {

OpReads reads_of(const MatmulOp& op) {
  return {.shape = op.weight.data.shape.to_string(), .bytes = op.weight.num_bytes()};
}

OpReads reads_of(const ExpertMatmulOp& op) {
  const int64_t experts = op.weight.data.dim(0), rows = op.out.dim(0);
  return {.shape = op.weight.data.shape.to_string(),
          .bytes = op.weight.num_bytes() / std::max<int64_t>(experts, 1) * std::min(experts, rows)};
}

OpReads reads_of(const PagedAttentionOp& op) {
  const int64_t caches = op.v_cache.bytes == op.k_cache.bytes ? 1 : 2;
  return {.shape = {},
          .bytes = 0,
          .bytes_per_cached_token = caches * op.num_kv_heads() * op.head_dim() * dtype_bytes(op.k_cache.dtype)};
}

}  // namespace octet
