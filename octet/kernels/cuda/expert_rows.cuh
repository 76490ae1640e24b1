// The rows of a mixture's step in the order of experts (octet/ops/route_experts.h), as kernels read them: on the
// device, after wait_for_previous().
#pragma once

#include "octet/ops/route_experts.h"

namespace octet {

struct ExpertRows {
  const int32_t* offsets = nullptr;  // null: rows of one matrix, in no order
  const int32_t* order = nullptr;
  int num_experts = 0;
  int num_slots = 1;

  __device__ int num_rows() const { return offsets[num_experts]; }
  __device__ int token_of(int row) const { return order[row] / num_slots; }
  // The expert of a row that there is.
  __device__ int expert_of(int row) const {
    int first = 0;
    for (int count = num_experts; count > 1;) {
      const int half = count / 2;
      if (offsets[first + half] <= row) {
        first += half;
        count -= half;
      } else {
        count = half;
      }
    }
    return first;
  }
};

inline ExpertRows expert_rows(const ConstExpertPlan& plan) {
  return {.offsets = plan.offsets.data<int32_t>(),
          .order = plan.order.data<int32_t>(),
          .num_experts = static_cast<int>(plan.num_experts()),
          .num_slots = static_cast<int>(plan.num_slots())};
}

}  // namespace octet
