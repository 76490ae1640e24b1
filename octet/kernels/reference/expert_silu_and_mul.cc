#include "octet/kernels/reference/expert_rows.h"
#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

SiluAndMulOp row_of(const ExpertSiluAndMulOp& op, int64_t r, int64_t e) {
  return {.out = rows_of_expert(op.out, e, r, 1), .x = op.x.rows(r, 1)};
}

std::string declines(const ExpertSiluAndMulOp& op, const Launch& launch) {
  if (op.x.dim(0) == 0 || op.plan.num_experts() == 0) return "";
  return reference_silu_and_mul().declines(row_of(op, 0, 0), launch);
}

void run(const ExpertSiluAndMulOp& op, const Launch& launch) {
  for_expert_rows(op.plan,
                  [&](int64_t r, int64_t e, int64_t) { reference_silu_and_mul().run(row_of(op, r, e), launch); });
}

}  // namespace

Kernel<ExpertSiluAndMulOp> reference_expert_silu_and_mul() {
  return {.name = "reference.expert_silu_and_mul", .declines = declines, .run = run};
}

}  // namespace octet
