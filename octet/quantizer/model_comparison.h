// ModelComparison: two models' logits over the same samples, gathered into KL divergence and its kin.
#pragma once

#include <span>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/quantizer/figures.h"
#include "octet/tensor/tensor.h"

namespace octet {

class ModelComparison {
 public:
  ModelComparison(int64_t vocab_size, ThreadPool& threads) : vocab_size_(vocab_size), threads_(threads) {}

  // The source's logits [R, vocab_size] of some positions; copied.
  void set_expected(ConstTensor logits);
  // The other's of the same, which are those of `sample` from `begin` on.
  void add(ConstTensor logits, std::span<const int32_t> sample, int64_t begin);
  // Positions of a sample depend on each other: its mean is one observation.
  void end_sample();
  ModelFigures figures() const;

 private:
  int64_t vocab_size_;
  ThreadPool& threads_;
  std::vector<float> expected_;
  std::vector<double> kl_, sample_means_;
  size_t sample_begin_ = 0;  // in kl_
  int64_t num_same_ = 0, num_scored_ = 0;
  double nll_ = 0.0, source_nll_ = 0.0;
};

}  // namespace octet
