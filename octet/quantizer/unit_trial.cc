#include "octet/quantizer/unit_trial.h"

#include <algorithm>
#include <cmath>

#include "octet/quant/weight_rows.h"
#include "octet/quantizer/output_error.h"
#include "octet/quantizer/quantized_weight.h"

namespace octet {
namespace {

ConstTensor as_tensor(const std::vector<float>& values, const Shape& shape) {
  return {std::as_bytes(std::span(values)).data(), DType::kF32, shape};
}

// weight with its columns multiplied, in F32.
std::vector<float> with_columns(ConstTensor weight, std::span<const float> factors, ThreadPool& threads) {
  std::vector<float> out(static_cast<size_t>(weight.num_elements()));
  for_each_weight_row(weight, threads, [&](int64_t row, std::span<const float> values) {
    float* to = out.data() + row * weight.dim(1);
    for (size_t k = 0; k < values.size(); ++k) to[k] = values[k] * factors[k];
  });
  return out;
}

double mean_row_error(const std::vector<float>& expected, const std::vector<float>& found, size_t rows) {
  const size_t n = expected.size() / rows;
  double total = 0.0;
  for (size_t r = 0; r < rows; ++r) {
    double error = 0.0, sum = 0.0;
    for (size_t i = r * n; i < (r + 1) * n; ++i) {
      const double difference = static_cast<double>(expected[i]) - static_cast<double>(found[i]);
      error += difference * difference;
      sum += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
    }
    if (sum > 0.0) total += error / sum;
  }
  return total / static_cast<double>(rows);
}

}  // namespace

UnitTrial::UnitTrial(const Backend& backend, const PlannedUnit& unit, const SafetensorsFolder& source,
                     const Folds& folds, ConstTensor x, ThreadPool& threads)
    : backend_(backend), x_(x), threads_(threads) {
  for (const PlannedLinear& part : unit.parts) {
    auto& weight = *weights_.emplace_back(std::make_unique<SourceTensor>(source, part.weight(), threads));
    if (const auto it = folds.find(part.weight()); it != folds.end()) weight.apply(it->second, threads);
    outputs_.push_back(linear_output(backend, x, ConstQuantTensor(weight.matrix())));
  }
}

double UnitTrial::error(const NamedScheme& scheme, std::span<const float> factors) const {
  std::vector<float> divided;
  ConstTensor x = x_;
  if (!factors.empty()) {
    divided.resize(static_cast<size_t>(x_.num_elements()));
    for (int64_t r = 0; r < x_.dim(0); ++r) {
      for (size_t k = 0; k < factors.size(); ++k)
        divided[static_cast<size_t>(r) * factors.size() + k] = x_.row<float>(r)[k] / factors[k];
    }
    x = as_tensor(divided, x_.shape);
  }
  double total = 0.0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    ConstTensor weight = weights_[i]->matrix();
    std::vector<float> multiplied;
    if (!factors.empty()) {
      multiplied = with_columns(weight, factors, threads_);
      weight = as_tensor(multiplied, weight.shape);
    }
    QuantizedWeight quantised(scheme.weights->weight_format(), weight.dim(0), weight.dim(1));
    scheme.weights->quantize(weight, quantised.tensor, threads_);
    total += mean_row_error(outputs_[i], linear_output(backend_, x, quantised.tensor, scheme.activation),
                            static_cast<size_t>(x.dim(0)));
  }
  return total / static_cast<double>(weights_.size());
}

std::vector<float> UnitTrial::column_amax() const {
  std::vector<float> amax(static_cast<size_t>(x_.dim(1)), 0.0f), values(amax.size());
  for (const auto& weight : weights_) {
    for (int64_t row = 0; row < weight->matrix().dim(0); ++row) {
      read_weight_row(weight->matrix(), row, values);
      for (size_t k = 0; k < values.size(); ++k) amax[k] = std::max(amax[k], std::abs(values[k]));
    }
  }
  return amax;
}

}  // namespace octet
