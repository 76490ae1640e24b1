// The specification of a fusion: the reference kernels of its parts, one after the other.
#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/reference.h"

namespace octet {
namespace {

const KernelTable& parts_table() {
  static const KernelTable table = [] {
    KernelTable made;
    add_reference_kernels(made);
    return made;
  }();
  return table;
}

template <Fusion Op>
std::string declines(const Op& op, const Launch& launch) {
  std::string reason;
  const auto ask = [&]<class Part>(const Part& part) {
    if (reason.empty()) reason = parts_table().of<Part>().front().declines(part, launch);
  };
  std::apply([&](const auto&... part) { (ask(part), ...); }, op.parts());
  return reason;
}

template <Fusion Op>
void run(const Op& op, const Launch& launch) {
  Backend(parts_table(), launch, DType::kF32)(op);  // which has no row for the whole
}

}  // namespace

Kernel<RopeAttentionOp> reference_rope_attention() {
  return {.name = "reference.rope_attention", .declines = declines<RopeAttentionOp>, .run = run<RopeAttentionOp>};
}

Kernel<ReduceNormOp> reference_reduce_norm() {
  return {.name = "reference.reduce_norm", .declines = declines<ReduceNormOp>, .run = run<ReduceNormOp>};
}

void add_reference_fusions(KernelTable& table) {
  table.of<ReduceNormOp>().push_back(reference_reduce_norm());
  table.of<RopeAttentionOp>().push_back(reference_rope_attention());
}

}  // namespace octet
