// check() of the ops of mixtures of experts.
#include "octet/ops/combine_experts.h"
#include "octet/ops/expert_matmul.h"
#include "octet/ops/expert_permute.h"
#include "octet/ops/expert_silu_and_mul.h"
#include "octet/ops/matmul.h"
#include "octet/ops/quantize.h"

namespace octet {
namespace {

constexpr std::initializer_list<DType> kActivation = {DType::kF32, DType::kBF16};

void check_plan(ShapeCheck& check, const ConstExpertPlan& plan) {
  check.tensor("plan.offsets", plan.offsets, {"E+1"});
  check.tensor("plan.order", plan.order, {"T*k"});
  check.tensor("plan.rows", plan.rows, {"T", "k"});
  for (const ConstTensor* tensor : {&plan.offsets, &plan.order, &plan.rows})
    check.dtype("plan", *tensor, {DType::kI32});
  check.that(plan.order.dim(0) == plan.rows.num_elements(), "plan.order has an entry for each of plan.rows");
  check.that(plan.rows.contiguous(), "plan.rows is contiguous");
}

// Rows in the order of experts: those with scales per tensor have one for each expert.
void check_rows(ShapeCheck& check, std::string_view name, const ConstQuantTensor& x, std::string_view columns) {
  if (x.format.granularity != Granularity::kTensor) return check.quantized(name, x, {"T*k", columns});
  check.tensor(name, x.data, {"T*k", columns});
  check.that(x.data.dtype == x.format.dtype, "data has the dtype of its format");
  check.tensor("scale", x.scale, {"E"});
  check.dtype("scale", x.scale, {DType::kF32});
  if (!x.format.zero_point) return;
  check.tensor("zero_point", x.zero_point, {"E"});
  check.dtype("zero_point", x.zero_point, {DType::kI32});
}

}  // namespace

void RouteExpertsOp::check() const {
  ShapeCheck check(kName);
  check.tensor("x", x, {"T", "E"});
  check.dtype("x", x, {DType::kF32});
  check.tensor("expert_ids", expert_ids, {"T", "k"});
  check.dtype("expert_ids", expert_ids, {DType::kI32});
  check.tensor("weights", weights, {"T", "k"});
  check.dtype("weights", weights, {DType::kF32});
  if (correction) {
    check.tensor("correction", correction, {"E"});
    check.dtype("correction", correction, {DType::kF32});
  }
  ShapeCheck plan_check(kName);
  check_plan(plan_check, plan);
  check.tensor("plan.rows", plan.rows, {"T", "k"});
  check.that(num_slots() >= 1 && num_slots() <= num_experts(), "1 <= k <= E");
  check.that(first_expert >= 0 && first_expert + plan.num_experts() <= num_experts(), "this rank's experts are of E");
  check.that(routing.num_groups >= 1 && num_experts() % routing.num_groups == 0, "E is a multiple of num_groups");
  check.that(routing.num_chosen_groups >= 1 && routing.num_chosen_groups <= routing.num_groups,
             "1 <= num_chosen_groups <= num_groups");
  check.that(num_slots() <= num_experts() / routing.num_groups * routing.num_chosen_groups,
             "the chosen groups have k experts");
}

void ExpertMatmulOp::check() const {
  ShapeCheck check(kName);
  check_plan(check, plan);
  check.dim("E", plan.num_experts(), "plan.offsets");
  check.tensor("out", out, {"T*k", "N"});
  check.dtype("out", out, kActivation);
  check.tensor("weight", weight.data, {"E", "N", "K"});
  check.that(weight.data.contiguous() && weight.data.dtype == weight.format.dtype,
             "weight is contiguous, as its format says");
  if (weight.format.quantized()) {
    const Shape& shape = weight.data.shape;
    check.that(weight.scale.dtype == DType::kF32 && weight.scale.contiguous() &&
                   weight.scale.shape == weight.format.stack_scale_shape(shape[0], shape[1], shape[2]),
               "weight's scale is f32 [E, scales of an expert]");
  }
  check_rows(check, "x", x, "K");
  check.that(is_matmul_x(x.format), "x is plain, or per token, tensor or group");
  check.that(is_matmul_weight(weight.format), "weight is plain, or per tensor, channel, group or block");
}

void ExpertPermuteOp::check() const {
  ShapeCheck check(kName);
  check_plan(check, plan);
  check.dim("E", plan.num_experts(), "plan.offsets");
  check.tensor("x", x, {"T", "K"});
  check.dtype("x", x, kActivation);
  check_rows(check, "out", out, "K");
  check.that(!out.format.quantized() || is_quantized_activation(out.format),
             "an activation is plain or in a format of quantize.h");
}

void ExpertSiluAndMulOp::check() const {
  ShapeCheck check(kName);
  check_plan(check, plan);
  check.dim("E", plan.num_experts(), "plan.offsets");
  check.tensor("x", x, {"T*k", "2I"});
  check.dtype("x", x, kActivation);
  check_rows(check, "out", out, "I");
  check.that(!out.format.quantized() || is_quantized_activation(out.format),
             "an activation is plain or in a format of quantize.h");
  check.that(x.dim(1) == 2 * out.data.dim(1), "x has twice the columns of out");
}

void CombineExpertsOp::check() const {
  ShapeCheck check(kName);
  check.tensor("out", out, {"T", "H"});
  check.dtype("out", out, kActivation);
  check.tensor("y", y, {"T*k", "H"});
  check.dtype("y", y, kActivation);
  check.tensor("weights", weights, {"T", "k"});
  check.dtype("weights", weights, {DType::kF32});
  check.tensor("rows", rows, {"T", "k"});
  check.dtype("rows", rows, {DType::kI32});
  check.that(y.dim(0) == rows.num_elements(), "y has a row for each token and slot");
  check.that(static_cast<bool>(shared) || !shared_gate, "shared_gate belongs to shared");
  if (shared) {
    check.tensor("shared", shared, {"T", "H"});
    check.dtype("shared", shared, kActivation);
    check.that(shared.bytes != out.bytes, "out is not shared's memory");
  }
  if (shared_gate) {
    check.tensor("shared_gate", shared_gate, {"T", "1"});
    check.dtype("shared_gate", shared_gate, {DType::kF32});
    check.that(shared_gate.dim(1) == 1, "shared_gate has one column");
  }
}

}  // namespace octet
