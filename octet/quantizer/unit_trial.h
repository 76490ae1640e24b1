// UnitTrial: what a way to store a unit's linears would lose of their outputs, found by trying it on some rows of their
// input. Choices between formats and strengths of smoothing are made by it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "octet/ops/ops.h"
#include "octet/quantizer/fold.h"
#include "octet/quantizer/input_statistics.h"
#include "octet/quantizer/plan.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {

class UnitTrial {
 public:
  // x [R, K] f32: rows of the unit's input. `folds`: what other choices of its layer have done to its weights. The
  // backend is the CPU's. All of it outlives this.
  UnitTrial(const Backend& backend, const PlannedUnit& unit, const SafetensorsFolder& source, const Folds& folds,
            ConstTensor x, ThreadPool& threads);

  // The mean over rows and linears of |y - y_q|^2 / |y|^2, with weights rounded to the nearest: every token counts
  // alike, however large it is, as the norms that follow make it. `factors` [K]: columns of the weights are multiplied
  // by them, the input divided; empty: none.
  double error(const NamedScheme& scheme, std::span<const float> factors = {}) const;
  // The largest magnitude of each column of the weights.
  std::vector<float> column_amax() const;

 private:
  const Backend& backend_;
  ConstTensor x_;
  ThreadPool& threads_;
  std::vector<std::unique_ptr<SourceTensor>> weights_;
  std::vector<std::vector<float>> outputs_;  // [R, N] of each, in real numbers
};

}  // namespace octet
