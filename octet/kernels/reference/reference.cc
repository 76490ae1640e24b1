#include "octet/kernels/reference/reference.h"

#include "octet/kernels/reference/kernels.h"

namespace octet {

void add_reference_kernels(KernelTable& table) {
  table.of<AllGatherOp>().push_back(reference_all_gather());
  table.of<AllReduceOp>().push_back(reference_all_reduce());
  table.of<CombineExpertsOp>().push_back(reference_combine_experts());
  table.of<EmbeddingOp>().push_back(reference_embedding());
  table.of<ExpertMatmulOp>().push_back(reference_expert_matmul());
  table.of<ExpertPermuteOp>().push_back(reference_expert_permute());
  table.of<ExpertSiluAndMulOp>().push_back(reference_expert_silu_and_mul());
  table.of<GatherRowsOp>().push_back(reference_gather_rows());
  table.of<MoveIntsOp>().push_back(reference_move_ints());
  table.of<HeadMatmulOp>().push_back(reference_head_matmul());
  table.of<LatentKvOp>().push_back(reference_latent_kv());
  table.of<MatmulOp>().push_back(reference_matmul());
  table.of<PagedAttentionOp>().push_back(reference_paged_attention());
  table.of<QuantizeOp>().push_back(reference_quantize());
  table.of<RmsNormOp>().push_back(reference_rms_norm());
  table.of<RopeKvOp>().push_back(reference_rope_kv());
  table.of<RopeTableOp>().push_back(reference_rope_table());
  table.of<RouteExpertsOp>().push_back(reference_route_experts());
  table.of<SampleOp>().push_back(reference_sample());
  table.of<SiluAndMulOp>().push_back(reference_silu_and_mul());
}

}  // namespace octet
