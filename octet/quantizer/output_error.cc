#include "octet/quantizer/output_error.h"

#include "octet/base/error.h"
#include "octet/device/arena.h"

namespace octet {
namespace {

// x in the activation's format, in the arena.
QuantTensor quantised_input(const Backend& backend, Arena& arena, ConstTensor x, const QuantFormat& format,
                            std::optional<float> input_scale) {
  const Shape scale_shape = format.scale_shape(x.dim(0), x.dim(1));
  QuantTensor out(arena.make(format.dtype, x.shape), arena.make(DType::kF32, scale_shape), format);
  if (format.zero_point) out.zero_point = arena.make(DType::kI32, scale_shape);
  if (input_scale) out.scale.data<float>()[0] = *input_scale;
  backend(QuantizeOp{.out = out, .x = x});
  return out;
}

}  // namespace

std::vector<float> linear_output(const Backend& backend, ConstTensor x, ConstQuantTensor weight,
                                 const QuantFormat& activation, std::optional<float> input_scale) {
  const int64_t rows = x.dim(0), n = weight.data.dim(0);
  constexpr int64_t kSlack = 4096;
  Arena arena(Device{}, 3 * x.num_elements() * int64_t{sizeof(float)} + kSlack);
  std::vector<float> values(static_cast<size_t>(rows * n));
  const Tensor out(reinterpret_cast<std::byte*>(values.data()), DType::kF32, Shape{rows, n});
  const ConstQuantTensor input = activation.quantized()
                                     ? ConstQuantTensor(quantised_input(backend, arena, x, activation, input_scale))
                                     : ConstQuantTensor(x);
  backend(MatmulOp{.out = out, .x = input, .weight = weight});
  return values;
}

double output_error(const Backend& backend, ConstTensor x, ConstTensor weight, ConstQuantTensor quantised,
                    const QuantFormat& activation, std::optional<float> input_scale) {
  const std::vector<float> y = linear_output(backend, x, ConstQuantTensor(weight));
  const std::vector<float> q = linear_output(backend, x, quantised, activation, input_scale);
  double error = 0.0, sum = 0.0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double difference = static_cast<double>(y[i]) - static_cast<double>(q[i]);
    error += difference * difference;
    sum += static_cast<double>(y[i]) * static_cast<double>(y[i]);
  }
  return sum > 0.0 ? error / sum : 0.0;
}

}  // namespace octet
