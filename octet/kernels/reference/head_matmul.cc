#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

MatmulOp matmul_of(const HeadMatmulOp& op, int64_t h) {
  return {.out = op.out.columns(h * op.out_step + op.out_first, op.weight.dim(1)),
          .x = ConstQuantTensor(op.x.columns(h * op.x_step + op.x_first, op.weight.dim(2))),
          .weight = ConstQuantTensor(op.weight.slice(h)),
          .bias = {}};
}

void run(const HeadMatmulOp& op, const Launch& launch) {
  for (int64_t h = 0; h < op.num_heads(); ++h) reference_matmul().run(matmul_of(op, h), launch);
}

}  // namespace

Kernel<HeadMatmulOp> reference_head_matmul() {
  return {.name = "reference.head_matmul",
          .declines = [](const HeadMatmulOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet
