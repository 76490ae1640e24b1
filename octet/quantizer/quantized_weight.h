// QuantizedWeight: one linear in 8 bits, before it is written.
#pragma once

#include <vector>

#include "octet/tensor/quant_format.h"

namespace octet {

struct QuantizedWeight {
  std::vector<std::byte> codes;
  std::vector<float> scales;
  QuantTensor tensor;  // a view of them

  QuantizedWeight(const QuantFormat& format, int64_t n, int64_t k) {
    const Shape scale_shape = format.scale_shape(n, k);
    codes.resize(static_cast<size_t>(n * k * dtype_bytes(format.dtype)));
    scales.resize(static_cast<size_t>(scale_shape.num_elements()));
    tensor = QuantTensor(Tensor(codes.data(), format.dtype, Shape{n, k}),
                         Tensor(reinterpret_cast<std::byte*>(scales.data()), DType::kF32, scale_shape), format);
  }
  // Vectors keep their memory when moved, so that `tensor` stays a view of them.
  QuantizedWeight(QuantizedWeight&&) = default;
  QuantizedWeight& operator=(QuantizedWeight&&) = default;
  QuantizedWeight(const QuantizedWeight&) = delete;
  QuantizedWeight& operator=(const QuantizedWeight&) = delete;
};

}  // namespace octet
