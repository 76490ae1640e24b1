// Hopper's rows; each in the file of its name.
#pragma once

#include <vector>

#include "octet/ops/ops.h"

namespace octet {

Kernel<MatmulOp> hopper_matmul_f8_ring();
Kernel<MatmulOp> hopper_matmul_f8_block_ring();
Kernel<MatmulOp> hopper_matmul_i8_ring();
Kernel<MatmulOp> hopper_matmul_bf16_ring();
Kernel<MatmulOp> hopper_matmul_f8_swapped();
Kernel<MatmulOp> hopper_matmul_f8_block_swapped();
Kernel<MatmulOp> hopper_matmul_i8_swapped();
Kernel<MatmulOp> hopper_matmul_bf16_swapped();
Kernel<MatmulOp> hopper_matmul_f8_wgmma();
Kernel<MatmulOp> hopper_matmul_f8_block_wgmma();
Kernel<MatmulOp> hopper_matmul_i8_wgmma();
Kernel<MatmulOp> hopper_matmul_bf16_wgmma();
// For each kind of operands, in the files of matmul_*.
std::vector<Kernel<ExpertMatmulOp>> hopper_expert_matmul_ring();
std::vector<Kernel<ExpertMatmulOp>> hopper_expert_matmul_swapped();
std::vector<Kernel<ExpertMatmulOp>> hopper_expert_matmul_wgmma();
Kernel<PagedAttentionOp> hopper_attention_decode();
Kernel<PagedAttentionOp> hopper_attention_prefill();
Kernel<PagedAttentionOp> hopper_attention_tiles();
Kernel<RopeAttentionOp> hopper_rope_attention_decode();

}  // namespace octet
