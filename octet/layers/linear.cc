#include "octet/layers/linear.h"

#include <fmt/ranges.h>

#include <vector>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kArenaAlignment = 64;

}  // namespace

int64_t arena_bytes(int64_t num_elements, int64_t element_bytes) {
  return (num_elements * element_bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

std::string linear_name(const Weights& weights, std::span<const LinearPart> parts) {
  if (parts.size() == 1) return weights.full_name(parts[0].name);
  std::vector<std::string> names;
  for (const LinearPart& part : parts) names.push_back(part.name);
  return weights.full_name(fmt::format("{{{}}}", fmt::join(names, ",")));
}

QuantTensor make_dynamic(Step& step, const QuantFormat& format, int64_t rows, int64_t cols) {
  const Shape scale_shape = format.scale_shape(rows, cols);
  QuantTensor x(step.arena.make(format.dtype, Shape{rows, cols}), step.arena.make(DType::kF32, scale_shape), format);
  if (format.zero_point) x.zero_point = step.arena.make(DType::kI32, scale_shape);
  return x;
}

int64_t dynamic_bytes(const QuantFormat& format, int64_t rows, int64_t cols) {
  const int64_t scales = arena_bytes(format.scale_shape(rows, cols).num_elements());
  return arena_bytes(rows * cols, dtype_bytes(format.dtype)) + scales * (format.zero_point ? 2 : 1);
}

bool has_shareable_scale(const QuantFormat& format) {
  return format.granularity == Granularity::kToken && format.dynamic && !format.zero_point;
}

void quantize_with_shared_scales(Step& step, ConstTensor x, const QuantTensor& out) {
  // A first pass for this rank's scales; the largest over ranks are the scales that one rank would have found.
  step.backend(QuantizeOp{.out = out, .x = x});
  OCTET_CHECK(step.backend.device().kind == DeviceKind::kCpu);  // see WeightSource::shares_token_scales
  step.comm.all_reduce_max(out.scale);
  QuantTensor given = out;
  given.format.dynamic = false;
  step.backend(QuantizeOp{.out = given, .x = x});
}

Partial Partial::none(Step& step, int64_t hidden_size) {
  Partial partial;
  partial.memory_ = step.make(Shape{step.batch.num_tokens(), hidden_size});
  return partial;
}

int64_t Partial::num_bytes(int64_t num_tokens, int64_t hidden_size) { return arena_bytes(num_tokens * hidden_size); }

Linear::Linear(const Weights& weights, const LinearRequest& request)
    : name_(linear_name(weights, request.parts)), loaded_(weights.linear(request)) {
  const bool sharded_input = request.shard == Shard::kRow && weights.source().world_size > 1;
  shares_token_scale_ =
      sharded_input && weights.source().shares_token_scales && has_shareable_scale(loaded_.activation);
}

QuantTensor Linear::make_input(Step& step, int64_t num_rows) const {
  const QuantFormat& format = loaded_.activation;
  if (!format.quantized() || shares_token_scale_) return QuantTensor(step.make(Shape{num_rows, k()}));
  if (format.dynamic) return make_dynamic(step, format, num_rows, k());
  OCTET_CHECK(format.granularity == Granularity::kTensor);
  QuantTensor x(step.arena.make(format.dtype, Shape{num_rows, k()}), loaded_.input_scale, format);
  x.zero_point = loaded_.input_zero_point;
  return x;
}

int64_t Linear::input_bytes(int64_t num_rows) const {
  if (!loaded_.activation.quantized() || shares_token_scale_) return arena_bytes(num_rows * k());
  return dynamic_bytes(loaded_.activation, num_rows, k());
}

Activation Linear::input_of(Step& step, ConstTensor x) const {
  if (!loaded_.activation.quantized() || shares_token_scale_) return ConstQuantTensor(x);
  const QuantTensor quantized = make_input(step, x.dim(0));
  step.backend(QuantizeOp{.out = quantized, .x = x});
  return quantized;
}

void Linear::multiply(Step& step, const Activation& x, Tensor out) const {
  if (step.observe_input && !x.format.quantized()) step.observe_input(name_, x.data);
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
  const QuantTensor quantized = make_dynamic(step, activation_format(), x.data.dim(0), k());
  quantize_with_shared_scales(step, x.data, quantized);
  multiply(step, quantized, out.fill());
}

int64_t RowLinear::scratch_bytes(int64_t num_rows) const {
  return shares_token_scale() ? dynamic_bytes(activation_format(), num_rows, k()) : 0;
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
