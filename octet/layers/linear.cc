#include "octet/layers/linear.h"

#include <fmt/ranges.h>

#include <vector>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kArenaAlignment = 64;

std::string linear_name(const Weights& weights, const LinearRequest& request) {
  if (request.parts.size() == 1) return weights.full_name(request.parts[0].name);
  std::vector<std::string> names;
  for (const LinearPart& part : request.parts) names.push_back(part.name);
  return weights.full_name(fmt::format("{{{}}}", fmt::join(names, ",")));
}

QuantTensor make_dynamic(Step& step, int64_t rows, int64_t cols) {
  return QuantTensor(step.arena.make(kF8DynamicToken.dtype, Shape{rows, cols}),
                     step.arena.make(DType::kF32, Shape{rows}), kF8DynamicToken);
}

int64_t dynamic_bytes(int64_t rows, int64_t cols) { return arena_bytes(rows * cols, 1) + arena_bytes(rows); }

}  // namespace

int64_t arena_bytes(int64_t num_elements, int64_t element_bytes) {
  return (num_elements * element_bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

Partial Partial::none(Step& step, int64_t hidden_size) {
  Partial partial;
  // Collectives are in F32.
  const DType dtype = step.comm.world_size() > 1 ? DType::kF32 : step.backend.activation_dtype();
  partial.memory_ = step.arena.make(dtype, Shape{step.batch.num_tokens(), hidden_size});
  return partial;
}

ConstTensor Partial::reduce(Step& step) const {
  if (!filled_) return {};
  if (step.comm.world_size() > 1) step.comm.all_reduce_sum(memory_, step.backend.launch().stream);
  return memory_;
}

int64_t Partial::num_bytes(int64_t num_tokens, int64_t hidden_size) { return arena_bytes(num_tokens * hidden_size); }

Linear::Linear(const Weights& weights, const LinearRequest& request)
    : name_(linear_name(weights, request)), loaded_(weights.linear(request)) {
  const bool sharded_input = request.shard == Shard::kRow && weights.source().world_size > 1;
  shares_token_scale_ = sharded_input && loaded_.activation.quantized() && loaded_.activation.dynamic;
}

QuantTensor Linear::make_input(Step& step, int64_t num_rows) const {
  const QuantFormat& format = loaded_.activation;
  if (!format.quantized() || shares_token_scale_) return QuantTensor(step.make(Shape{num_rows, k()}));
  if (format == kF8DynamicToken) return make_dynamic(step, num_rows, k());
  OCTET_CHECK(format == kF8StaticTensor);
  return QuantTensor(step.arena.make(format.dtype, Shape{num_rows, k()}), loaded_.input_scale, format);
}

int64_t Linear::input_bytes(int64_t num_rows) const {
  if (!loaded_.activation.quantized() || shares_token_scale_) return arena_bytes(num_rows * k());
  return dynamic_bytes(num_rows, k());
}

void Linear::multiply(Step& step, const Activation& x, Tensor out) const {
  step.backend(MatmulOp{.out = out, .x = x, .weight = loaded_.weight, .bias = loaded_.bias});
}

Tensor ColumnLinear::operator()(Step& step, const Activation& x) const {
  const Tensor out = step.make(Shape{x.data.dim(0), n()});
  multiply(step, x, out);
  return out;
}

int64_t ColumnLinear::output_bytes(int64_t num_rows) const { return arena_bytes(num_rows * n()); }

void RowLinear::operator()(Step& step, const Activation& x, Partial& out) const {
  if (!shares_token_scale()) return multiply(step, x, out.fill());
  const Arena::Scope scope(step.arena);
  const QuantTensor quantized = make_dynamic(step, x.data.dim(0), k());
  // A first pass for this rank's scales; the largest over ranks are the scales that one rank would have found.
  step.backend(QuantizeOp{.out = quantized, .x = x.data});
  step.comm.all_reduce_max(quantized.scale, step.backend.launch().stream);
  QuantTensor given = quantized;
  given.format.dynamic = false;
  step.backend(QuantizeOp{.out = given, .x = x.data});
  multiply(step, quantized, out.fill());
}

int64_t RowLinear::scratch_bytes(int64_t num_rows) const {
  return shares_token_scale() ? dynamic_bytes(num_rows, k()) : 0;
}

Activation GatedLinear::operator()(Step& step, const Activation& x, const Linear& consumer) const {
  const QuantTensor out = consumer.make_input(step, x.data.dim(0));
  const Arena::Scope scope(step.arena);
  const Tensor gate_up = step.make(Shape{x.data.dim(0), n()});
  multiply(step, x, gate_up);
  step.backend(SiluAndMulOp{.out = out, .x = gate_up});
  return out;
}

int64_t GatedLinear::scratch_bytes(int64_t num_rows) const { return arena_bytes(num_rows * n()); }

}  // namespace octet
