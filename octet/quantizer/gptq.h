// Rounding that makes up for its own errors (GPTQ, Frantar et al. 2022), onto the grids of E4M3 and INT8.
//
// A linear's output error over the calibration text is (q - w) H (q - w)^T with H = sum x x^T. With H = L L^T, L lower
// triangular, it is the squared length of (q - w) L, whose j-th component is
//   (q_j - w_j) L_jj + sum over i > j of (q_i - w_i) L_ij.
// Columns are rounded from the last to the first, each to where its component is least, given those before it: what
// GPTQ computes with the inverse of H, without inverting it (Chen et al. 2025: it is Babai's nearest plane). Columns
// are sorted by H_jj so that those that matter most come first. Scales are given and stay.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/ops/ops.h"
#include "octet/tensor/quant_format.h"

namespace octet {

// sum x x^T of a unit's inputs.
class Hessian {
 public:
  explicit Hessian(int64_t num_channels);
  // x [T, K] f32; the backend is the CPU's.
  void add(const Backend& backend, ConstTensor x);
  int64_t num_channels() const { return num_channels_; }
  // The products of x with every channel c divided by by[c].
  void divide(std::span<const float> by);
  // Of i >= j only.
  float at(int64_t i, int64_t j) const { return lower_[static_cast<size_t>(i * num_channels_ + j)]; }

 private:
  int64_t num_channels_;
  std::vector<float> lower_;
};

// H = L L^T of a Hessian with its columns in order and damped: H_jj times 1 + damping, so that every channel is damped
// by its own measure. A channel that no text reaches counts for itself alone.
class HessianFactor {
 public:
  enum class Damping : uint8_t {
    kByChannel,
    kByMean,  // H_jj plus damping times the mean of all: what others do, which drowns small channels beside large ones
  };
  // Damping is 0.01; raised tenfold up to three times, with a warning, while H is not positive definite. `name`: of the
  // unit. Throws Error{kModel} when it never is.
  HessianFactor(const Hessian& hessian, const std::string& name, ThreadPool& threads,
                Damping kind = Damping::kByChannel);
  const std::vector<int64_t>& order() const { return order_; }  // order()[p]: the channel at place p
  // L_ij of i >= j, contiguous over i.
  const float* column(int64_t j) const { return columns_.data() + j * num_channels_; }
  double damping() const { return damping_; }

 private:
  bool factor(const Hessian& hessian, ThreadPool& threads);

  int64_t num_channels_;
  Damping kind_;
  double damping_ = 0.01;
  std::vector<int64_t> order_;
  std::vector<float> columns_;
};

// The scale of an element; per tensor, channel or block.
float scale_at(const QuantTensor& matrix, int64_t row, int64_t column);

// Codes of `weight` [N, K] into out.data, with out.scale as it is. The same on any number of threads.
void round_with_hessian(ConstTensor weight, const HessianFactor& factor, QuantTensor out, ThreadPool& threads);

}  // namespace octet
