// "bf16", "f16", "f32": weights as they are, held in that dtype whatever plain dtype the file has.
#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

class PlainScheme final : public QuantScheme {
 public:
  explicit PlainScheme(DType dtype) : dtype_(dtype) {}
  std::string_view name() const override { return dtype_name(dtype_); }
  QuantFormat weight_format() const override { return plain_format(dtype_); }
  QuantFormat activation_format() const override { return plain_format(dtype_); }

  std::vector<StoredTensor> stored_tensors(int64_t n, int64_t k) const override {
    return {{.suffixes = {"weight"},
             .role = WeightRole::kWeight,
             .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
             .shapes = {Shape{n, k}}}};
  }

 private:
  void quantize_checked(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                        std::span<const float>) const override {
    for_each_weight_row(weight, threads,
                        [&](int64_t row, std::span<float> values) { write_weight_row(out.data, row, values); });
  }

  DType dtype_;
};

}  // namespace

const QuantScheme& bf16_scheme() {
  static const PlainScheme scheme(DType::kBF16);
  return scheme;
}
const QuantScheme& f16_scheme() {
  static const PlainScheme scheme(DType::kF16);
  return scheme;
}
const QuantScheme& f32_scheme() {
  static const PlainScheme scheme(DType::kF32);
  return scheme;
}

}  // namespace octet
