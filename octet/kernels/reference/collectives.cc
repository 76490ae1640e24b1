// What Comm computes of the memory of the ranks' threads.
#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

template <class Op>
std::string declines(const Op& op, const Launch&) {
  return op.comm->peers() == nullptr ? "" : "the ranks' memory is on GPUs";
}

void run_all_reduce(const AllReduceOp& op, const Launch&) { op.comm->all_reduce_sum(op.x); }
void run_all_gather(const AllGatherOp& op, const Launch&) { op.comm->all_gather_columns(op.part, op.out); }

}  // namespace

Kernel<AllReduceOp> reference_all_reduce() {
  return {.name = "reference.all_reduce", .declines = declines<AllReduceOp>, .run = run_all_reduce};
}
Kernel<AllGatherOp> reference_all_gather() {
  return {.name = "reference.all_gather", .declines = declines<AllGatherOp>, .run = run_all_gather};
}

}  // namespace octet
