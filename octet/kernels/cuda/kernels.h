// The portable CUDA rows; each in the file of its name.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

Kernel<AllGatherOp> cuda_all_gather();
Kernel<AllReduceOp> cuda_all_reduce_lines();
Kernel<AllReduceOp> cuda_all_reduce_slices();
Kernel<CombineExpertsOp> cuda_combine_experts();
Kernel<EmbeddingOp> cuda_embedding();
Kernel<ExpertMatmulOp> cuda_expert_matmul_simple();
Kernel<ExpertPermuteOp> cuda_expert_permute();
Kernel<ExpertSiluAndMulOp> cuda_expert_silu_and_mul();
Kernel<GatherRowsOp> cuda_gather_rows();
Kernel<MoveIntsOp> cuda_move_ints();
Kernel<HeadMatmulOp> cuda_head_matmul_simple();
Kernel<LatentKvOp> cuda_latent_kv();
Kernel<MatmulOp> cuda_matmul_narrow();
Kernel<MatmulOp> cuda_matmul_simple();
Kernel<PagedAttentionOp> cuda_attention_simple();
Kernel<QuantizeOp> cuda_quantize();
Kernel<ReduceNormOp> cuda_reduce_norm();
Kernel<RmsNormOp> cuda_rms_norm();
Kernel<RopeKvOp> cuda_rope_kv();
Kernel<RopeTableOp> cuda_rope_table();
Kernel<RouteExpertsOp> cuda_route_experts();
Kernel<SampleOp> cuda_sample();
Kernel<SiluAndMulOp> cuda_silu_and_mul();

}  // namespace octet
