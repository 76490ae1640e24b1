// InputStatistics: what calibration keeps of the inputs of linears that share them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/tensor/tensor.h"

namespace octet {

class InputStatistics {
 public:
  explicit InputStatistics(int64_t num_channels)
      : channel_amax_(static_cast<size_t>(num_channels), 0.0f), channel_squares_(static_cast<size_t>(num_channels)) {}

  // x [T, K] f32: rows of real tokens.
  void add(ConstTensor x);

  // As though each channel c of all rows had been divided by by[c].
  void divide(std::span<const float> by);

  int64_t num_tokens() const { return num_tokens_; }
  float amax() const;
  // The root of the mean square of all elements.
  double rms() const;
  const std::vector<float>& channel_amax() const { return channel_amax_; }
  // Sums of squares, by channel: the diagonal of x^T x.
  const std::vector<double>& channel_squares() const { return channel_squares_; }

 private:
  int64_t num_tokens_ = 0;
  std::vector<float> channel_amax_;
  std::vector<double> channel_squares_;
};

// Some rows of inputs, spread over all that are added: what errors of outputs are measured on.
class InputSample {
 public:
  static constexpr int64_t kMaxRows = 256;
  // `num_tokens`: how many rows will be added in all. Strides are odd, so that they do not fall into step with texts of
  // 2^n tokens: the first token of each is like no other.
  InputSample(int64_t num_channels, int64_t num_tokens)
      : num_channels_(num_channels), stride_(((num_tokens + kMaxRows - 1) / kMaxRows) | 1) {}

  void add(ConstTensor x);
  void divide(std::span<const float> by);  // see InputStatistics
  // [R, K] f32.
  ConstTensor rows() const;
  int64_t num_seen() const { return num_seen_; }

 private:
  int64_t num_channels_;
  int64_t stride_;
  int64_t num_seen_ = 0;
  std::vector<float> values_;
};

}  // namespace octet
