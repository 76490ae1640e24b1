// "int8_channel": 8-bit integers with one scale per output channel, activations quantised per token at run time. On
// disk as compressed-tensors writes it: weight_scale [N, 1]. Quantised while loading the scale is amax / 127
// (compressed- tensors divides by 127.5, stored scales are used as they are).
#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

class Int8ChannelScheme final : public QuantScheme {
 public:
  std::string_view name() const override { return "int8_channel"; }
  QuantFormat weight_format() const override { return kI8Channel; }
  QuantFormat activation_format() const override { return kI8DynamicToken; }

  std::vector<StoredTensor> stored_tensors(int64_t n, int64_t k) const override {
    return {stored_weight(DType::kI8, n, k), stored_scale({Shape{n, 1}, Shape{n}})};
  }

 private:
  void quantize_checked(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                        std::span<const float> amax) const override {
    for_each_weight_row(weight, threads, [&](int64_t row, std::span<float> values) {
      const float scale = int8_weight_scale(amax.empty() ? amax_of(values) : amax[static_cast<size_t>(row)]);
      out.scale.data<float>()[row] = scale;
      for (float& value : values) value /= scale;
      write_weight_row(out.data, row, values);
    });
  }
};

}  // namespace

const QuantScheme& int8_channel_scheme() {
  static const Int8ChannelScheme scheme;
  return scheme;
}

}  // namespace octet
