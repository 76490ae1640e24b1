#include "octet/kernels/reference/expert_rows.h"
#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

// One row's matmul.
MatmulOp matmul_of(const ExpertMatmulOp& op, int64_t r, int64_t e) {
  return {.out = op.out.rows(r, 1), .x = rows_of_expert(op.x, e, r, 1), .weight = op.weight.matrix(e), .bias = {}};
}

std::string declines(const ExpertMatmulOp& op, const Launch& launch) {
  if (op.out.dim(0) == 0 || op.plan.num_experts() == 0) return "";
  return reference_matmul().declines(matmul_of(op, 0, 0), launch);
}

void run(const ExpertMatmulOp& op, const Launch& launch) {
  for_expert_rows(op.plan, [&](int64_t r, int64_t e, int64_t) { reference_matmul().run(matmul_of(op, r, e), launch); });
}

}  // namespace

Kernel<ExpertMatmulOp> reference_expert_matmul() {
  return {.name = "reference.expert_matmul", .declines = declines, .run = run};
}

}  // namespace octet
