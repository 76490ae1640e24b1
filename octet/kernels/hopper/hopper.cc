// Hopper's rows.
#include "octet/kernels/gpu.h"
#include "octet/kernels/hopper/kernels.h"

namespace octet {

namespace {

template <class Op>
void add(KernelTable& table, const std::vector<Kernel<Op>>& rows) {
  for (const Kernel<Op>& row : rows) table.of<Op>().push_back(row);
}

}  // namespace

void add_hopper_kernels(KernelTable& table) {
  add(table, hopper_expert_matmul_ring());
  add(table, hopper_expert_matmul_swapped());
  add(table, hopper_expert_matmul_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_ring());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_block_ring());
  table.of<MatmulOp>().push_back(hopper_matmul_i8_ring());
  table.of<MatmulOp>().push_back(hopper_matmul_bf16_ring());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_swapped());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_block_swapped());
  table.of<MatmulOp>().push_back(hopper_matmul_i8_swapped());
  table.of<MatmulOp>().push_back(hopper_matmul_bf16_swapped());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_block_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_i8_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_bf16_wgmma());
  table.of<PagedAttentionOp>().push_back(hopper_attention_prefill());
  table.of<PagedAttentionOp>().push_back(hopper_attention_decode());
  table.of<RopeAttentionOp>().push_back(hopper_rope_attention_decode());
}

void add_deterministic_hopper_kernels(KernelTable& table) {
  add(table, hopper_expert_matmul_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_f8_block_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_i8_wgmma());
  table.of<MatmulOp>().push_back(hopper_matmul_bf16_wgmma());
  table.of<PagedAttentionOp>().push_back(hopper_attention_tiles());
}

}  // namespace octet
