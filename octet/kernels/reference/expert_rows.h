// The rows of a step in the order of experts, for the reference kernels: fn(r, e, token) of each.
#pragma once

#include "octet/ops/route_experts.h"

namespace octet {

template <class Fn>
void for_expert_rows(const ConstExpertPlan& plan, Fn&& fn) {
  const auto* offsets = plan.offsets.data<int32_t>();
  const auto* order = plan.order.data<int32_t>();
  for (int64_t e = 0; e < plan.num_experts(); ++e) {
    for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
      OCTET_CHECK(order[r] >= 0 && order[r] < plan.rows.num_elements());
      fn(r, e, order[r] / plan.num_slots());
    }
  }
}

}  // namespace octet
