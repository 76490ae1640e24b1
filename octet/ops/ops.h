// Every op of octet, the table of their kernels, and Backend, which runs them.
#pragma once

#include "octet/ops/all_gather.h"
#include "octet/ops/all_reduce.h"
#include "octet/ops/combine_experts.h"
#include "octet/ops/embedding.h"
#include "octet/ops/expert_matmul.h"
#include "octet/ops/expert_permute.h"
#include "octet/ops/expert_silu_and_mul.h"
#include "octet/ops/gather_rows.h"
#include "octet/ops/head_matmul.h"
#include "octet/ops/latent_kv.h"
#include "octet/ops/matmul.h"
#include "octet/ops/move_ints.h"
#include "octet/ops/op.h"
#include "octet/ops/paged_attention.h"
#include "octet/ops/quantize.h"
#include "octet/ops/reduce_norm.h"
#include "octet/ops/rms_norm.h"
#include "octet/ops/rope_attention.h"
#include "octet/ops/rope_kv.h"
#include "octet/ops/rope_table.h"
#include "octet/ops/route_experts.h"
#include "octet/ops/sample.h"
#include "octet/ops/silu_and_mul.h"

namespace octet {

using KernelTable = BasicKernelTable<AllGatherOp, AllReduceOp, CombineExpertsOp, EmbeddingOp, ExpertMatmulOp,
                                     ExpertPermuteOp, ExpertSiluAndMulOp, GatherRowsOp, HeadMatmulOp, LatentKvOp,
                                     MatmulOp, MoveIntsOp, PagedAttentionOp, QuantizeOp, ReduceNormOp, RmsNormOp,
                                     RopeAttentionOp, RopeKvOp, RopeTableOp, RouteExpertsOp, SampleOp, SiluAndMulOp>;

// Most ops read activations only.
inline OpReads reads_of(const auto&) { return {}; }
OpReads reads_of(const MatmulOp& op);
OpReads reads_of(const ExpertMatmulOp& op);  // of as many experts as the tokens may hit
OpReads reads_of(const PagedAttentionOp& op);
template <Fusion Op>
OpReads reads_of(const Op& op) {
  OpReads all;
  const auto add = [&all](const OpReads& part) {
    if (all.shape.empty()) all.shape = part.shape;
    all.bytes += part.bytes;
    all.bytes_per_cached_token += part.bytes_per_cached_token;
  };
  std::apply([&](const auto&... part) { (add(reads_of(part)), ...); }, op.parts());
  return all;
}

// Which kernel takes an op and why those before it decline: what `octet inspect --kernels` prints.
struct KernelChoice {
  std::string_view chosen;  // empty when all decline: a fusion then runs as its parts
  std::vector<std::pair<std::string_view, std::string>> declined;
};

class Backend {
 public:
  // `table` outlives the backend. activation_dtype: what layers make their activations in (f32 on the CPU).
  Backend(const KernelTable& table, Launch launch, DType activation_dtype)
      : table_(table), launch_(launch), activation_dtype_(activation_dtype) {}

  template <class Op>
  void operator()(const Op& op) const {
    op.check();
    run_checked(op);
  }

  template <class Op>
  KernelChoice choose(const Op& op) const {
    KernelChoice choice;
    for (const Kernel<Op>& kernel : table_.of<Op>()) {
      std::string reason = kernel.declines(op, launch_);
      if (reason.empty()) {
        choice.chosen = kernel.name;
        break;
      }
      choice.declined.emplace_back(kernel.name, std::move(reason));
    }
    return choice;
  }

  const Launch& launch() const { return launch_; }
  const KernelTable& table() const { return table_; }
  Device device() const { return launch_.stream.device; }
  DType activation_dtype() const { return activation_dtype_; }

 private:
  // A fusion's check is that of its parts too.
  template <class Op>
  void run_checked(const Op& op) const {
    for (const Kernel<Op>& kernel : table_.of<Op>()) {
      if (!kernel.declines(op, launch_).empty()) continue;
      if (launch_.observer != nullptr) launch_.observer->begins(Op::kName, reads_of(op));
      return kernel.run(op, launch_);
    }
    if constexpr (Fusion<Op>) {
      std::apply([this](const auto&... part) { (run_checked(part), ...); }, op.parts());
    } else {
      no_kernel(Op::kName, choose(op).declined);
    }
  }

  const KernelTable& table_;
  Launch launch_;
  DType activation_dtype_;
};

}  // namespace octet
