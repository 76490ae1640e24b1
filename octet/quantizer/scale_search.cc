#include "octet/quantizer/scale_search.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "octet/base/error.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

constexpr size_t kNumSteps = 64;

// Factors of the scale that the largest magnitude gives; the first is 1.
std::array<float, kNumSteps> make_factors(DType dtype) {
  std::array<float, kNumSteps> factors{};
  for (size_t i = 0; i < kNumSteps; ++i) {
    const double part = static_cast<double>(i) / static_cast<double>(kNumSteps);
    // INT8: down to 0.6; E4M3: up to, not including, the next octave.
    factors[i] = static_cast<float>(dtype == DType::kI8 ? 1.0 - 0.4 * part : std::exp2(part));
  }
  return factors;
}

float real_e4m3(float value) {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> reals{};
    for (size_t code = 0; code < reals.size(); ++code) reals[code] = to_f32(F8E4M3{static_cast<uint8_t>(code)});
    return reals;
  }();
  return table[masked_f8_e4m3(value).bits];
}

class Search {
 public:
  Search(const QuantFormat& format, std::span<const double> importance)
      : format_(format), factors_(make_factors(format.dtype)), importance_(importance.begin(), importance.end()) {}

  float largest_code() const { return format_.dtype == DType::kI8 ? 127.0f : kMaxF8E4M3; }

  // Adds the errors of every factor for some columns of a row, from `first` on.
  void add(std::span<const float> values, size_t first, float amax, std::array<double, kNumSteps>& errors) const {
    const float* importance = importance_.data() + first;
    for (size_t step = 0; step < kNumSteps; ++step) {
      const float scale = amax * factors_[step] / largest_code();
      float sum = 0.0f;
      if (format_.dtype == DType::kI8) {
        for (size_t k = 0; k < values.size(); ++k) {
          const float code = std::clamp(std::nearbyint(values[k] / scale), -128.0f, 127.0f);
          const float difference = values[k] - code * scale;
          sum += importance[k] * difference * difference;
        }
      } else {
        for (size_t k = 0; k < values.size(); ++k) {
          const float difference = values[k] - real_e4m3(values[k] / scale) * scale;
          sum += importance[k] * difference * difference;
        }
      }
      errors[step] += static_cast<double>(sum);
    }
  }

  float best(float amax, const std::array<double, kNumSteps>& errors) const {
    const auto least = std::min_element(errors.begin(), errors.end()) - errors.begin();
    return amax * factors_[static_cast<size_t>(least)];
  }

 private:
  QuantFormat format_;
  std::array<float, kNumSteps> factors_;
  std::vector<float> importance_;
};

// The scale of zeros is the scheme's business.
bool is_zero(float amax) { return !(amax > 0.0f); }

std::vector<float> search_rows(ConstTensor weight, const Search& search, ThreadPool& threads) {
  std::vector<float> maxima(static_cast<size_t>(weight.dim(0)));
  for_each_weight_row(weight, threads, [&](int64_t row, std::span<const float> values) {
    float& amax = maxima[static_cast<size_t>(row)];
    amax = amax_of(values);
    if (is_zero(amax)) return;
    std::array<double, kNumSteps> errors{};
    search.add(values, 0, amax, errors);
    amax = search.best(amax, errors);
  });
  return maxima;
}

float search_tensor(std::span<const ConstTensor> weights, const Search& search, ThreadPool& threads) {
  float amax = 0.0f;
  for (const ConstTensor& weight : weights) amax = std::max(amax, weight_amax(weight, threads));
  if (is_zero(amax)) return amax;
  std::array<double, kNumSteps> total{};
  for (const ConstTensor& weight : weights) {
    std::vector<std::array<double, kNumSteps>> rows(static_cast<size_t>(weight.dim(0)));
    for_each_weight_row(weight, threads, [&](int64_t row, std::span<const float> values) {
      search.add(values, 0, amax, rows[static_cast<size_t>(row)]);
    });
    for (const auto& errors : rows) {
      for (size_t step = 0; step < kNumSteps; ++step) total[step] += errors[step];
    }
  }
  return search.best(amax, total);
}

std::vector<float> search_blocks(ConstTensor weight, const QuantFormat& format, const Search& search,
                                 ThreadPool& threads) {
  const Shape blocks = format.scale_shape(weight.dim(0), weight.dim(1));
  const auto columns = static_cast<size_t>(format.group_cols), k = static_cast<size_t>(weight.dim(1));
  std::vector<float> maxima(static_cast<size_t>(blocks.num_elements()), 0.0f);
  threads.parallel_for(blocks[0], 1, [&](int, int64_t begin, int64_t end) {
    std::vector<float> values(k);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * format.group_rows, last = std::min(first + format.group_rows, weight.dim(0));
      const std::span<float> amax =
          std::span(maxima).subspan(static_cast<size_t>(block * blocks[1]), static_cast<size_t>(blocks[1]));
      const auto part = [&](size_t b) {
        return std::span<const float>(values).subspan(b * columns, std::min(columns, k - b * columns));
      };
      for (int64_t row = first; row < last; ++row) {
        read_weight_row(weight, row, values);
        for (size_t b = 0; b < amax.size(); ++b) amax[b] = std::max(amax[b], amax_of(part(b)));
      }
      std::vector<std::array<double, kNumSteps>> errors(amax.size());
      for (int64_t row = first; row < last; ++row) {
        read_weight_row(weight, row, values);
        for (size_t b = 0; b < amax.size(); ++b) {
          if (!is_zero(amax[b])) search.add(part(b), b * columns, amax[b], errors[b]);
        }
      }
      for (size_t b = 0; b < amax.size(); ++b) {
        if (!is_zero(amax[b])) amax[b] = search.best(amax[b], errors[b]);
      }
    }
  });
  return maxima;
}

}  // namespace

std::vector<float> search_scales(std::span<const ConstTensor> weights, const QuantFormat& format,
                                 std::span<const double> importance, ThreadPool& threads) {
  const Search search(format, importance);
  if (format.granularity == Granularity::kTensor) return {search_tensor(weights, search, threads)};
  OCTET_CHECK(weights.size() == 1);
  if (format.granularity == Granularity::kBlock) return search_blocks(weights[0], format, search, threads);
  OCTET_CHECK(format.granularity == Granularity::kChannel);
  return search_rows(weights[0], search, threads);
}

}  // namespace octet
