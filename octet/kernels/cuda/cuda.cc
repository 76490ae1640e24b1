// Portable CUDA rows, one function per file of this folder.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/gpu.h"

namespace octet {

void add_cuda_kernels(KernelTable& table) {
  table.of<AllGatherOp>().push_back(cuda_all_gather());
  table.of<AllReduceOp>().push_back(cuda_all_reduce_lines());
  table.of<AllReduceOp>().push_back(cuda_all_reduce_slices());
  table.of<CombineExpertsOp>().push_back(cuda_combine_experts());
  table.of<EmbeddingOp>().push_back(cuda_embedding());
  table.of<ExpertMatmulOp>().push_back(cuda_expert_matmul_simple());
  table.of<ExpertPermuteOp>().push_back(cuda_expert_permute());
  table.of<ExpertSiluAndMulOp>().push_back(cuda_expert_silu_and_mul());
  table.of<GatherRowsOp>().push_back(cuda_gather_rows());
  table.of<MoveIntsOp>().push_back(cuda_move_ints());
  table.of<HeadMatmulOp>().push_back(cuda_head_matmul_simple());
  table.of<LatentKvOp>().push_back(cuda_latent_kv());
  // Before tensor cores' rows, too.
  table.of<MatmulOp>().insert(table.of<MatmulOp>().begin(), cuda_matmul_narrow());
  table.of<MatmulOp>().push_back(cuda_matmul_simple());
  table.of<PagedAttentionOp>().push_back(cuda_attention_simple());
  table.of<QuantizeOp>().push_back(cuda_quantize());
  table.of<ReduceNormOp>().push_back(cuda_reduce_norm());
  table.of<RmsNormOp>().push_back(cuda_rms_norm());
  table.of<RopeKvOp>().push_back(cuda_rope_kv());
  table.of<RopeTableOp>().push_back(cuda_rope_table());
  table.of<RouteExpertsOp>().push_back(cuda_route_experts());
  table.of<SampleOp>().push_back(cuda_sample());
  table.of<SiluAndMulOp>().push_back(cuda_silu_and_mul());
}

}  // namespace octet
