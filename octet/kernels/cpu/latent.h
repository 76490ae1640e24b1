// Multi-head latent attention's small products, head by head, by the row of the op for one matrix. Plain code: it only
// calls the vector rows.
#pragma once

#include "octet/kernels/cpu/declines.h"

namespace octet {

inline MatmulOp matmul_of_head(const HeadMatmulOp& op, int64_t h) {
  return {.out = op.out.columns(h * op.out_step + op.out_first, op.weight.dim(1)),
          .x = ConstQuantTensor(op.x.columns(h * op.x_step + op.x_first, op.weight.dim(2))),
          .weight = ConstQuantTensor(op.weight.slice(h)),
          .bias = {}};
}

template <void (*run_matmul)(const MatmulOp&, const Launch&)>
void run_head_matmul(const HeadMatmulOp& op, const Launch& launch) {
  for (int64_t h = 0; h < op.num_heads(); ++h) run_matmul(matmul_of_head(op, h), launch);
}

template <class Needs>
std::string head_matmul_declines(const HeadMatmulOp& op, const Launch& launch) {
  if (op.num_heads() == 0) return "there are no heads";
  return vector_row_declines<Needs, MatmulOp>(matmul_of_head(op, 0), launch);
}

// Appends the vector row.
template <class Needs, void (*run_matmul)(const MatmulOp&, const Launch&)>
void add_head_matmul_row(KernelTable& table, std::string_view name) {
  table.of<HeadMatmulOp>().push_back(
      {.name = name, .declines = &head_matmul_declines<Needs>, .run = &run_head_matmul<run_matmul>});
}

}  // namespace octet
