// "int8_tensor": 8-bit integers with one scale for the whole matrix, as some compressed-tensors checkpoints have it. In
// memory it becomes one per channel.
#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

class Int8TensorScheme final : public QuantScheme {
 public:
  std::string_view name() const override { return "int8_tensor"; }
  QuantFormat weight_format() const override { return kI8StaticTensor; }
  QuantFormat activation_format() const override { return kI8DynamicToken; }

  std::vector<StoredTensor> stored_tensors(int64_t n, int64_t k) const override {
    return {stored_weight(DType::kI8, n, k), stored_scale({Shape{}, Shape{1}, Shape{1, 1}})};
  }

 private:
  void quantize_checked(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                        std::span<const float> amax) const override {
    const float scale = int8_weight_scale(amax.empty() ? weight_amax(weight, threads) : amax[0]);
    out.scale.data<float>()[0] = scale;
    for_each_weight_row(weight, threads, [&](int64_t row, std::span<float> values) {
      for (float& value : values) value /= scale;
      write_weight_row(out.data, row, values);
    });
  }
};

}  // namespace

const QuantScheme& int8_tensor_scheme() {
  static const Int8TensorScheme scheme;
  return scheme;
}

}  // namespace octet
