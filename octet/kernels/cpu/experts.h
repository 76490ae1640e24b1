// Products, activations and rounding of a mixture's experts, each by the row of the op for one matrix: expert after
// expert, those without rows not at all, so that a step reads the weights of the experts it hits and of no other. A
// fork for each costs about a microsecond, a matrix hundreds. Plain code: it only calls the vector rows.
#pragma once

#include <cstring>

#include "octet/kernels/cpu/declines.h"
#include "octet/kernels/cpu/split.h"

namespace octet {

inline int64_t num_expert_rows(const ConstExpertPlan& plan) { return plan.offsets.data<int32_t>()[plan.num_experts()]; }

// Tokens [T, K] f32 in the order of experts.
inline void gather(const ConstTensor& from, const ConstExpertPlan& plan, const Launch& launch, const Tensor& to) {
  const auto* order = plan.order.data<int32_t>();
  const int64_t width = from.dim(1);
  for_rows(launch, num_expert_rows(plan), width, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to.row<float>(r), from.row<float>(order[r] / plan.num_slots()),
                  static_cast<size_t>(width) * sizeof(float));
    }
  });
}

// fn(e, first row, number of rows) of each expert that has any.
template <class Fn>
void for_experts_hit(const ConstExpertPlan& plan, Fn&& fn) {
  const auto* offsets = plan.offsets.data<int32_t>();
  for (int64_t e = 0; e < plan.num_experts(); ++e) {
    if (offsets[e] < offsets[e + 1]) fn(e, int64_t{offsets[e]}, int64_t{offsets[e + 1]} - offsets[e]);
  }
}

using RunMatmul = void (*)(const MatmulOp&, const Launch&);
template <RunMatmul run_matmul>
void run_expert_matmul(const ExpertMatmulOp& op, const Launch& launch) {
  Launch each = launch;
  each.read_ahead = nullptr;  // which learns an order that every step has
  for_experts_hit(op.plan, [&](int64_t e, int64_t begin, int64_t count) {
    run_matmul({.out = op.out.rows(begin, count),
                .x = rows_of_expert(op.x, e, begin, count),
                .weight = op.weight.matrix(e),
                .bias = {}},
               each);
  });
}

// Rows are gathered first: then the row of the op for one matrix shares them among threads.
using RunQuantize = void (*)(const QuantizeOp&, const Launch&);
template <RunQuantize run_quantize>
void run_expert_permute(const ExpertPermuteOp& op, const Launch& launch) {
  if (!op.out.format.quantized()) return gather(op.x, op.plan, launch, op.out.data);
  const Shape shape{op.out.data.dim(0), op.x.dim(1)};
  const Tensor x(launch.scratch->shared(shape.num_elements() * int64_t{sizeof(float)}), DType::kF32, shape);
  gather(op.x, op.plan, launch, x);
  const auto rows = [&](int64_t e, int64_t begin, int64_t count) {
    run_quantize({.out = rows_of_expert(op.out, e, begin, count), .x = x.rows(begin, count)}, launch);
  };
  if (op.out.format.granularity == Granularity::kTensor) return for_experts_hit(op.plan, rows);
  if (const int64_t num_rows = num_expert_rows(op.plan); num_rows > 0) rows(0, 0, num_rows);
}

using RunSiluAndMul = void (*)(const SiluAndMulOp&, const Launch&);
template <RunSiluAndMul run_silu_and_mul>
void run_expert_silu_and_mul(const ExpertSiluAndMulOp& op, const Launch& launch) {
  const auto rows = [&](int64_t e, int64_t begin, int64_t count) {
    run_silu_and_mul({.out = rows_of_expert(op.out, e, begin, count), .x = op.x.rows(begin, count)}, launch);
  };
  if (op.out.format.granularity == Granularity::kTensor) return for_experts_hit(op.plan, rows);
  if (const int64_t num_rows = num_expert_rows(op.plan); num_rows > 0) rows(0, 0, num_rows);
}

// What the rows above ask of their parts.
using MatmulDeclines = std::string (*)(const MatmulOp&, const Launch&);
template <MatmulDeclines declines>
std::string expert_matmul_declines(const ExpertMatmulOp& op, const Launch& launch) {
  if (op.plan.num_experts() == 0) return "there are no experts on this rank";
  const ConstQuantTensor x = rows_of_expert(op.x, 0, 0, op.x.data.dim(0));
  return declines({.out = op.out, .x = x, .weight = op.weight.matrix(0), .bias = {}}, launch);
}
inline std::string shape_declines(const ExpertPermuteOp& op) {
  return shape_declines(QuantizeOp{.out = op.out, .x = op.x});
}
inline std::string shape_declines(const ExpertSiluAndMulOp& op) {
  return shape_declines(SiluAndMulOp{.out = op.out, .x = op.x});
}
inline std::string shape_declines(const CombineExpertsOp& op) {
  const bool f32 = op.out.dtype == DType::kF32 && op.y.dtype == DType::kF32;
  return f32 && (!op.shared || op.shared.dtype == DType::kF32) ? "" : "y, shared and out must be f32";
}

// Appends the rows of an instruction set's experts.
template <class Needs, RunMatmul run_matmul, RunQuantize run_quantize, RunSiluAndMul run_silu_and_mul>
void add_expert_rows(KernelTable& table, std::string_view matmul, std::string_view permute,
                     std::string_view silu_and_mul) {
  table.of<ExpertMatmulOp>().push_back({.name = matmul,
                                        .declines = &expert_matmul_declines<&vector_row_declines<Needs, MatmulOp>>,
                                        .run = &run_expert_matmul<run_matmul>});
  add_vector_row<Needs, ExpertPermuteOp>(table, permute, &run_expert_permute<run_quantize>);
  add_vector_row<Needs, ExpertSiluAndMulOp>(table, silu_and_mul, &run_expert_silu_and_mul<run_silu_and_mul>);
}
template <class Needs, RunMatmul run_matmul_i8>
void add_expert_matmul_i8_row(KernelTable& table, std::string_view name) {
  table.of<ExpertMatmulOp>().push_back({.name = name,
                                        .declines = &expert_matmul_declines<&matmul_i8_row_declines<Needs>>,
                                        .run = &run_expert_matmul<run_matmul_i8>});
}

}  // namespace octet
