#include "octet/quantizer/output_error.h"

#include <vector>

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

double output_error(const Backend& backend, ConstTensor x, ConstTensor weight, ConstQuantTensor quantised,
                    const QuantFormat& activation, std::optional<float> input_scale) {
  const int64_t rows = x.dim(0), n = weight.dim(0);
  constexpr int64_t kSlack = 4096;
  Arena arena(Device{}, (2 * rows * n + 3 * x.num_elements()) * int64_t{sizeof(float)} + kSlack);
  const Tensor expected = arena.make(DType::kF32, Shape{rows, n}), found = arena.make(DType::kF32, Shape{rows, n});
  backend(MatmulOp{.out = expected, .x = ConstQuantTensor(x), .weight = ConstQuantTensor(weight)});
  const ConstQuantTensor input = activation.quantized()
                                     ? ConstQuantTensor(quantised_input(backend, arena, x, activation, input_scale))
                                     : ConstQuantTensor(x);
  backend(MatmulOp{.out = found, .x = input, .weight = quantised});
  double error = 0.0, sum = 0.0;
  const float* y = expected.data<float>();
  const float* q = found.data<float>();
  for (int64_t i = 0; i < rows * n; ++i) {
    const double difference = static_cast<double>(y[i]) - static_cast<double>(q[i]);
    error += difference * difference;
    sum += static_cast<double>(y[i]) * static_cast<double>(y[i]);
  }
  return sum > 0.0 ? error / sum : 0.0;
}

}  // namespace octet
