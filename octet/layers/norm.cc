#include "octet/layers/norm.h"

namespace octet {

RmsNorm::RmsNorm(const Weights& weights, int64_t size, double epsilon)
    : weight_(weights.parameter("weight", Shape{size}, DType::kF32)), epsilon_(static_cast<float>(epsilon)) {}

void RmsNorm::run(Step& step, const Partial& x, Tensor residual, QuantTensor out) const {
  RmsNormOp norm{.out = out, .x = {}, .residual = residual, .weight = weight_, .epsilon = epsilon_};
  if (x.filled()) norm.x = x.share();
  if (!x.filled() || step.comm.world_size() == 1) return step.backend(norm);
  step.backend(ReduceNormOp{.reduce = {.x = x.share(), .comm = &step.comm}, .norm = norm});
}

Activation RmsNorm::operator()(Step& step, const Partial& x, Tensor residual, const Linear& consumer) const {
  const QuantTensor out = consumer.make_input(step, residual.dim(0));
  run(step, x, residual, out);
  return out;
}

Activation RmsNorm::of(Step& step, Tensor x, const Linear& consumer) const {
  const QuantTensor out = consumer.make_input(step, x.dim(0));
  step.backend(RmsNormOp{.out = out, .x = {}, .residual = x, .weight = weight_, .epsilon = epsilon_});
  return out;
}

Tensor RmsNorm::operator()(Step& step, const Partial& x, Tensor residual) const {
  const Tensor out = step.make(residual.shape);
  run(step, x, residual, QuantTensor(out));
  return out;
}

}  // namespace octet
