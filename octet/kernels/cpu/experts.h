// Products, activations and rounding of a mixture's experts, each by the row of the op for one matrix: expert after
// expert, those without rows not at all, so that a step reads the weights of the experts it hits and of no other. A
// fork for each costs about a microsecond, a matrix hundreds. Plain code: it only calls the vector rows.
#pragma once

#include <cstring>

#include "octet/kernels/cpu/declines.h"
#include "octet/kernels/cpu/split.h"

namespace octet {

// The rows of `from` that order names (divided by num_slots), one after the other.
inline void gather(const ConstTensor& from, const ConstExpertPlan& plan, const Launch& launch, const Tensor& to) {
  const auto* order = plan.order.data<int32_t>();
  const int64_t element = dtype_bytes(from.dtype), slots = plan.num_slots();
  const int64_t width = to.dim(0) == 0 ? 0 : to.num_elements() / to.dim(0);
  for_rows(launch, to.dim(0), width, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to.bytes + r * width * element, from.bytes + order[r] / slots * from.row_stride * element,
                  static_cast<size_t>(width * element));
    }
  });
}

inline int64_t num_expert_rows(const ConstExpertPlan& plan) { return plan.offsets.data<int32_t>()[plan.num_experts()]; }

// x of tokens in the order of experts, in the memory that threads share.
inline ConstQuantTensor gather_tokens(const ConstQuantTensor& x, const ConstExpertPlan& plan, const Launch& launch) {
  constexpr int64_t kLine = 64;
  const int64_t num_rows = num_expert_rows(plan);
  ConstQuantTensor gathered = x;
  int64_t num_bytes = 0;
  const auto place = [&](ConstTensor& tensor) {
    if (!tensor) return int64_t{-1};
    tensor.shape[0] = num_rows;
    const int64_t offset = num_bytes;
    num_bytes += (tensor.num_bytes() + kLine - 1) / kLine * kLine;
    return offset;
  };
  const int64_t data = place(gathered.data), scale = place(gathered.scale), zero = place(gathered.zero_point);
  std::byte* memory = launch.scratch->shared(num_bytes);
  const auto copy = [&](ConstTensor& tensor, const ConstTensor& from, int64_t offset) {
    if (offset < 0) return;
    const Tensor to(memory + offset, tensor.dtype, tensor.shape);
    gather(from, plan, launch, to);
    tensor = to;
  };
  copy(gathered.data, x.data, data);
  copy(gathered.scale, x.scale, scale);
  copy(gathered.zero_point, x.zero_point, zero);
  return gathered;
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
  const bool by_row = op.order == ExpertMatmulOp::Order::kByRow;
  const ConstQuantTensor x = by_row ? op.x : gather_tokens(op.x, op.plan, launch);
  Launch each = launch;
  each.read_ahead = nullptr;  // which learns an order that every step has
  for_experts_hit(op.plan, [&](int64_t e, int64_t begin, int64_t count) {
    run_matmul({.out = op.out.rows(begin, count),
                .x = rows_of_expert(x, e, begin, count),
                .weight = op.weight.matrix(e),
                .bias = {}},
               each);
  });
}

using RunQuantize = void (*)(const QuantizeOp&, const Launch&);
template <RunQuantize run_quantize>
void run_expert_quantize(const ExpertQuantizeOp& op, const Launch& launch) {
  const ConstTensor x = gather_tokens(ConstQuantTensor(op.x), op.plan, launch).data;
  for_experts_hit(op.plan, [&](int64_t e, int64_t begin, int64_t count) {
    run_quantize({.out = rows_of_expert(op.out, e, begin, count), .x = x.rows(begin, count)}, launch);
  });
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
inline std::string shape_declines(const ExpertQuantizeOp& op) {
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
void add_expert_rows(KernelTable& table, std::string_view matmul, std::string_view quantize,
                     std::string_view silu_and_mul) {
  table.of<ExpertMatmulOp>().push_back({.name = matmul,
                                        .declines = &expert_matmul_declines<&vector_row_declines<Needs, MatmulOp>>,
                                        .run = &run_expert_matmul<run_matmul>});
  add_vector_row<Needs, ExpertQuantizeOp>(table, quantize, &run_expert_quantize<run_quantize>);
  add_vector_row<Needs, ExpertSiluAndMulOp>(table, silu_and_mul, &run_expert_silu_and_mul<run_silu_and_mul>);
}
template <class Needs, RunMatmul run_matmul_i8>
void add_expert_matmul_i8_row(KernelTable& table, std::string_view name) {
  table.of<ExpertMatmulOp>().push_back({.name = name,
                                        .declines = &expert_matmul_declines<&matmul_i8_row_declines<Needs>>,
                                        .run = &run_expert_matmul<run_matmul_i8>});
}

}  // namespace octet
