// Portable CUDA rows, one function per file of this folder.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/gpu.h"

namespace octet {

void add_cuda_kernels(KernelTable& table) {
  table.of<ArgmaxOp>().push_back(cuda_argmax());
  table.of<MatmulOp>().push_back(cuda_matmul_simple());
  table.of<PagedAttentionOp>().push_back(cuda_attention_simple());
}

}  // namespace octet
