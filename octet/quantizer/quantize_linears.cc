#include "octet/quantizer/quantize_linears.h"

#include <algorithm>
#include <memory>

#include "octet/base/error.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/baseline_rounding.h"
#include "octet/quantizer/output_error.h"
#include "octet/quantizer/quantized_weight.h"
#include "octet/quantizer/scale_search.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {

double weight_error(ConstTensor weight, ConstQuantTensor quantised, ThreadPool& threads) {
  const int64_t n = weight.dim(0), k = weight.dim(1);
  std::vector<double> errors(static_cast<size_t>(n)), sums(static_cast<size_t>(n));
  const ConstTensor scale = quantised.scale;
  const QuantFormat& format = quantised.format;
  for_each_weight_row(weight, threads, [&](int64_t row, std::span<const float> values) {
    std::vector<float> codes(static_cast<size_t>(k));
    read_weight_row(quantised.data, row, codes);
    const int64_t columns = format.granularity == Granularity::kBlock ? format.group_cols : k;
    const float* scales = scale.data<float>();
    if (format.granularity == Granularity::kChannel) scales += row;
    if (format.granularity == Granularity::kBlock) scales += row / format.group_rows * scale.dim(1);
    double error = 0.0, sum = 0.0;
    for (int64_t begin = 0; begin < k; begin += columns) {
      const float s = scales[begin / columns];
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(std::min(k, begin + columns)); ++i) {
        const auto difference = static_cast<double>(values[i] - codes[i] * s);
        error += difference * difference;
        sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      }
    }
    errors[static_cast<size_t>(row)] = error;
    sums[static_cast<size_t>(row)] = sum;
  });
  double error = 0.0, sum = 0.0;
  for (size_t i = 0; i < errors.size(); ++i) {
    error += errors[i];
    sum += sums[i];
  }
  return sum > 0.0 ? error / sum : 0.0;
}

namespace {

class UnitQuantizer {
 public:
  UnitQuantizer(const UnitTask& task, ThreadPool& threads)
      : task_(task),
        scheme_(task.unit.scheme),
        recipe_(task.plan.recipe),
        format_(scheme_.weights->weight_format()),
        threads_(threads),
        input_(task.input) {
    for (const PlannedLinear& part : task.unit.parts) {
      auto& weight = *weights_.emplace_back(std::make_unique<SourceTensor>(task.source, part.weight(), threads));
      refuse_baseline_of(part, weight.matrix().dtype);
      if (const Fold* fold = fold_of(part)) weight.apply(*fold, threads);
    }
    if (per_tensor()) {
      for (const auto& weight : weights_) largest_ = std::max(largest_, weight_amax(weight->matrix(), threads));
      if (searches()) searched_ = search(0, weights_.size());
    }
    if (learns() && needs_hessian(recipe_)) {
      OCTET_CHECK(input_->hessian != nullptr);
      factor_.emplace(*input_->hessian, task.unit.name, threads,
                      is_baseline(recipe_) ? HessianFactor::Damping::kByMean : HessianFactor::Damping::kByChannel);
    }
  }

  // The weight of part `i` by the recipe.
  QuantizedWeight quantise(size_t i) const {
    if (is_baseline(recipe_)) return as_baseline(i);
    QuantizedWeight result = rounded(i, searches() && !per_tensor() ? search(i, 1) : searched_);
    if (factor_) round_with_hessian(weights_[i]->matrix(), *factor_, result.tensor, threads_);
    return result;
  }

  LinearFigures figures(const PlannedLinear& part, size_t i, const QuantizedWeight& quantised) const {
    const ConstTensor weight = weights_[i]->matrix();
    const auto [smallest, largest] = std::minmax_element(quantised.scales.begin(), quantised.scales.end());
    LinearFigures figures{.module = part.module,
                          .n = part.n,
                          .k = part.k,
                          .weight_error = weight_error(weight, quantised.tensor, threads_),
                          .smallest_scale = *smallest,
                          .largest_scale = *largest,
                          .scheme = scheme_.name,
                          .smoothing = input_ == nullptr ? std::nullopt : input_->smoothing,
                          .folded = fold_of(part) != nullptr};
    if (input_ == nullptr) return figures;
    CalibratedFigures calibrated{.num_tokens = input_->statistics->num_tokens(),
                                 .input_amax = input_->statistics->amax(),
                                 .input_rms = input_->statistics->rms(),
                                 .input_scale = input_->input_scale,
                                 .num_measured = input_->held_out.dim(0),
                                 .saturated = input_->saturated};
    if (calibrated.num_measured > 0) {
      calibrated.output_error = error_of(weight, quantised);
      calibrated.rounded_output_error =
          recipe_ == Recipe::kNearest ? calibrated.output_error : error_of(weight, rounded(i, {}));
    }
    figures.calibrated = calibrated;
    return figures;
  }

  void release(size_t i) { weights_[i].reset(); }

 private:
  // An expert that no text reaches has nothing to learn from and is rounded to the nearest, whatever the recipe.
  bool learns() const { return input_ != nullptr && input_->statistics->num_tokens() > 0; }
  bool searches() const { return learns() && searches_scales(recipe_); }
  bool per_tensor() const { return format_.granularity == Granularity::kTensor; }

  const Fold* fold_of(const PlannedLinear& part) const {
    if (task_.folds == nullptr) return nullptr;
    const auto it = task_.folds->find(part.weight());
    return it == task_.folds->end() ? nullptr : &it->second;
  }

  void refuse_baseline_of(const PlannedLinear& part, DType dtype) const {
    if (!is_baseline(recipe_)) return;
    if (const std::string reason = baseline_declines(recipe_, format_, dtype); !reason.empty())
      fail(ErrorCode::kUsage, "{}: the baseline's arithmetic {}", part.module, reason);
  }

  QuantizedWeight as_baseline(size_t i) const {
    const ConstTensor weight = weights_[i]->matrix();
    QuantizedWeight result(format_, weight.dim(0), weight.dim(1));
    round_as_baseline(recipe_, weight, factor_ ? &*factor_ : nullptr, result.tensor, threads_);
    return result;
  }

  std::vector<float> search(size_t first, size_t count) const {
    std::vector<ConstTensor> matrices;
    for (size_t i = first; i < first + count; ++i) matrices.push_back(weights_[i]->matrix());
    return search_scales(matrices, format_, input_->statistics->channel_squares(), threads_);
  }

  // To the nearest; `amax`: see QuantScheme::quantize, empty for the largest magnitudes.
  QuantizedWeight rounded(size_t i, std::vector<float> amax) const {
    const ConstTensor weight = weights_[i]->matrix();
    if (amax.empty() && per_tensor()) amax.assign(1, largest_);
    QuantizedWeight result(format_, weight.dim(0), weight.dim(1));
    scheme_.weights->quantize(weight, result.tensor, threads_, amax);
    return result;
  }

  double error_of(ConstTensor weight, const QuantizedWeight& quantised) const {
    return output_error(*input_->backend, input_->held_out, weight, quantised.tensor, scheme_.activation,
                        input_->input_scale);
  }

  const UnitTask& task_;
  const NamedScheme& scheme_;
  Recipe recipe_;
  QuantFormat format_;
  ThreadPool& threads_;
  const UnitInput* input_;
  std::vector<std::unique_ptr<SourceTensor>> weights_;
  float largest_ = 0.0f;         // of a scale per tensor
  std::vector<float> searched_;  // the same
  std::optional<HessianFactor> factor_;
};

}  // namespace

std::vector<LinearFigures> quantize_linears(const UnitTask& task, SafetensorsWriter& writer, ThreadPool& threads) {
  UnitQuantizer quantizer(task, threads);
  std::vector<LinearFigures> all;
  for (size_t i = 0; i < task.unit.parts.size(); ++i) {
    const PlannedLinear& part = task.unit.parts[i];
    const QuantizedWeight quantised = quantizer.quantise(i);
    writer.write(part.weight(), quantised.codes);
    writer.write(task.plan.scale_name(part), std::as_bytes(std::span(quantised.scales)));
    if (task.unit.scheme.static_activations()) {
      OCTET_CHECK(task.input != nullptr && task.input->input_scale);
      writer.write(part.module + ".input_scale", std::as_bytes(std::span(&*task.input->input_scale, 1)));
    }
    all.push_back(quantizer.figures(part, i, quantised));
    quantizer.release(i);
  }
  return all;
}

}  // namespace octet
