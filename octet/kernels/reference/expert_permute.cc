#include "octet/kernels/reference/expert_rows.h"
#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

std::string declines(const ExpertPermuteOp& op, const Launch&) { return declines_activation(op.out.format); }

void run(const ExpertPermuteOp& op, const Launch&) {
  for_expert_rows(op.plan, [&](int64_t r, int64_t e, int64_t token) {
    write_activation_row(rows_of_expert(op.out, e, r, 1), 0, read_row(op.x, token));
  });
}

}  // namespace

Kernel<ExpertPermuteOp> reference_expert_permute() {
  return {.name = "reference.expert_permute", .declines = declines, .run = run};
}

}  // namespace octet
