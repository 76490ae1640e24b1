// RMSNorm of the residual stream: adds what the last block left, normalises, and writes what the next linear wants.
#pragma once

#include "octet/layers/linear.h"

namespace octet {

class RmsNorm {
 public:
  // weights: the cursor of the norm, whose "weight" is [size].
  RmsNorm(const Weights& weights, int64_t size, double epsilon);

  // residual [T, H] += x summed over ranks; returns the norm of residual in the consumer's input format.
  Activation operator()(Step& step, const Partial& x, Tensor residual, const Linear& consumer) const;
  // The norm of x [T, size] alone, whose rows may be strided, in the consumer's input format.
  Activation of(Step& step, Tensor x, const Linear& consumer) const;
  // The same of a residual in the activation dtype.
  Tensor operator()(Step& step, const Partial& x, Tensor residual) const;

 private:
  void run(Step& step, const Partial& x, Tensor residual, QuantTensor out) const;

  Tensor weight_;
  float epsilon_;
};

}  // namespace octet
