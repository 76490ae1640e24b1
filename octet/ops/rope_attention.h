// RopeKvOp, then PagedAttentionOp of what it left in q_out and the cache: all of attention between two matmuls. A
// fusion (octet/ops/op.h). A kernel that takes it whole need not write rope.q_out. Every sequence has at least one new
// token, and slot_mapping says of each where its sequence's block table puts it, or is negative: then what the cache
// holds there is its key and value.
#pragma once

#include "octet/ops/paged_attention.h"
#include "octet/ops/rope_kv.h"

namespace octet {

struct RopeAttentionOp {
  static constexpr std::string_view kName = "rope_attention";
  RopeKvOp rope;
  PagedAttentionOp attention;

  std::tuple<const RopeKvOp&, const PagedAttentionOp&> parts() const { return {rope, attention}; }
  void check() const;
};

}  // namespace octet
