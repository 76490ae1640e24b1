// One kernel per op; each in the file of its op's name, those of fusions in fusions.cc.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

Kernel<AllGatherOp> reference_all_gather();
Kernel<AllReduceOp> reference_all_reduce();
Kernel<CombineExpertsOp> reference_combine_experts();
Kernel<EmbeddingOp> reference_embedding();
Kernel<ExpertMatmulOp> reference_expert_matmul();
Kernel<ExpertPermuteOp> reference_expert_permute();
Kernel<ExpertSiluAndMulOp> reference_expert_silu_and_mul();
Kernel<GatherRowsOp> reference_gather_rows();
Kernel<MoveIntsOp> reference_move_ints();
Kernel<HeadMatmulOp> reference_head_matmul();
Kernel<LatentKvOp> reference_latent_kv();
Kernel<MatmulOp> reference_matmul();
Kernel<PagedAttentionOp> reference_paged_attention();
Kernel<QuantizeOp> reference_quantize();
Kernel<ReduceNormOp> reference_reduce_norm();
Kernel<RmsNormOp> reference_rms_norm();
Kernel<RopeAttentionOp> reference_rope_attention();
Kernel<RopeKvOp> reference_rope_kv();
Kernel<RopeTableOp> reference_rope_table();
Kernel<RouteExpertsOp> reference_route_experts();
Kernel<SampleOp> reference_sample();
Kernel<SiluAndMulOp> reference_silu_and_mul();

}  // namespace octet
