#include "octet/quantizer/input_statistics.h"

#include <algorithm>
#include <cmath>

namespace octet {

void InputStatistics::add(ConstTensor x) {
  const auto channels = channel_amax_.size();
  std::vector<float> squares(channels);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const float* row = x.row<float>(t);
    for (size_t k = 0; k < channels; ++k) {
      channel_amax_[k] = std::max(channel_amax_[k], std::abs(row[k]));
      squares[k] += row[k] * row[k];
    }
    // Sums in F32 stay short.
    if (t % 64 == 63 || t + 1 == x.dim(0)) {
      for (size_t k = 0; k < channels; ++k) channel_squares_[k] += static_cast<double>(squares[k]);
      std::fill(squares.begin(), squares.end(), 0.0f);
    }
  }
  num_tokens_ += x.dim(0);
}

void InputStatistics::divide(std::span<const float> by) {
  for (size_t k = 0; k < channel_amax_.size(); ++k) {
    channel_amax_[k] /= by[k];
    channel_squares_[k] /= static_cast<double>(by[k]) * static_cast<double>(by[k]);
  }
}

float InputStatistics::amax() const { return *std::max_element(channel_amax_.begin(), channel_amax_.end()); }

double InputStatistics::rms() const {
  double sum = 0.0;
  for (const double squares : channel_squares_) sum += squares;
  const double count = static_cast<double>(num_tokens_) * static_cast<double>(channel_amax_.size());
  return count > 0.0 ? std::sqrt(sum / count) : 0.0;
}

void InputSample::add(ConstTensor x) {
  for (int64_t t = 0; t < x.dim(0); ++t, ++num_seen_) {
    if (num_seen_ % stride_ != 0) continue;
    const float* row = x.row<float>(t);
    values_.insert(values_.end(), row, row + num_channels_);
  }
}

void InputSample::divide(std::span<const float> by) {
  for (size_t i = 0; i < values_.size(); ++i) values_[i] /= by[i % by.size()];
}

ConstTensor InputSample::rows() const {
  const auto* bytes = reinterpret_cast<const std::byte*>(values_.data());
  return {bytes, DType::kF32, Shape{static_cast<int64_t>(values_.size()) / num_channels_, num_channels_}};
}

}  // namespace octet
