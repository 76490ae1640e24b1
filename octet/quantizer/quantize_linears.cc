#include "octet/quantizer/quantize_linears.h"

#include <algorithm>
#include <memory>

#include "octet/base/error.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/output_error.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {
namespace {

// One linear in 8 bits.
struct QuantizedWeight {
  std::vector<std::byte> codes;
  std::vector<float> scales;
  QuantTensor tensor;

  QuantizedWeight(const QuantFormat& format, int64_t n, int64_t k) {
    const Shape scale_shape = format.scale_shape(n, k);
    codes.resize(static_cast<size_t>(n * k * dtype_bytes(format.dtype)));
    scales.resize(static_cast<size_t>(scale_shape.num_elements()));
    tensor = QuantTensor(Tensor(codes.data(), format.dtype, Shape{n, k}),
                         Tensor(reinterpret_cast<std::byte*>(scales.data()), DType::kF32, scale_shape), format);
  }
};

}  // namespace

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

CalibratedFigures calibrated_figures(const QuantizePlan& plan, const UnitInput& input, ConstTensor weight,
                                     ConstQuantTensor quantised) {
  const double error =
      output_error(*input.backend, input.held_out, weight, quantised, plan.scheme.activation, input.input_scale);
  return {.input_amax = input.statistics->amax(),
          .input_rms = input.statistics->rms(),
          .input_scale = input.input_scale,
          .saturated = input.saturated,
          .output_error = error,
          .rounded_output_error = error};
}

}  // namespace

std::vector<LinearFigures> quantize_linears(const QuantizePlan& plan, const PlannedUnit& unit,
                                            const SafetensorsFolder& source, SafetensorsWriter& writer,
                                            ThreadPool& threads, const UnitInput* input) {
  const QuantScheme& scheme = *plan.quant.scheme;
  const QuantFormat format = scheme.weight_format();
  std::vector<std::unique_ptr<SourceTensor>> weights;
  std::vector<float> shared;
  for (const PlannedLinear& part : unit.parts) {
    weights.push_back(std::make_unique<SourceTensor>(source, part.weight(), threads));
    if (format.granularity != Granularity::kTensor) continue;
    const float amax = weight_amax(weights.back()->matrix(), threads);
    shared.assign(1, shared.empty() ? amax : std::max(shared[0], amax));
  }
  std::vector<LinearFigures> all;
  for (size_t i = 0; i < unit.parts.size(); ++i) {
    const PlannedLinear& part = unit.parts[i];
    const ConstTensor weight = weights[i]->matrix();
    QuantizedWeight quantised(format, part.n, part.k);
    scheme.quantize(weight, quantised.tensor, threads, shared);
    writer.write(part.weight(), quantised.codes);
    writer.write(plan.scale_name(part), std::as_bytes(std::span(quantised.scales)));
    if (plan.scheme.static_activations()) {
      OCTET_CHECK(input != nullptr && input->input_scale);
      writer.write(part.module + ".input_scale", std::as_bytes(std::span(&*input->input_scale, 1)));
    }
    const auto [smallest, largest] = std::minmax_element(quantised.scales.begin(), quantised.scales.end());
    all.push_back({.module = part.module,
                   .n = part.n,
                   .k = part.k,
                   .weight_error = weight_error(weight, quantised.tensor, threads),
                   .smallest_scale = *smallest,
                   .largest_scale = *largest});
    if (input != nullptr) all.back().calibrated = calibrated_figures(plan, *input, weight, quantised.tensor);
    weights[i].reset();
  }
  return all;
}

}  // namespace octet
