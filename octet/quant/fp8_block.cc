// "fp8_block": E4M3 with one scale per square of 128 x 128, activations quantised by 128 channels of a token at run
// time. On disk as DeepSeek writes it (weight_scale_inv, which is multiplied like any scale) or compressed-tensors
// (weight_scale), [ceil(N / 128), ceil(K / 128)], or with ModelOpt's axes of 1 in between.
#include <algorithm>

#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

constexpr int64_t kSide = 128;

class Fp8BlockScheme final : public QuantScheme {
 public:
  std::string_view name() const override { return "fp8_block"; }
  QuantFormat weight_format() const override { return kF8Block; }
  QuantFormat activation_format() const override { return kF8DynamicGroup; }

  std::vector<StoredTensor> stored_tensors(int64_t n, int64_t k) const override {
    const Shape blocks = kF8Block.scale_shape(n, k);
    std::vector<Shape> shapes = {blocks, Shape{blocks[0], 1, blocks[1], 1}};
    if (blocks.num_elements() == 1) {  // ModelOpt
      shapes.push_back(Shape{});
      shapes.push_back(Shape{1});
    }
    return {stored_weight(DType::kF8E4M3, n, k), stored_scale(shapes)};
  }

 private:
  // A row of blocks at a time.
  void quantize_checked(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                        std::span<const float> amax) const override {
    const auto k = static_cast<size_t>(weight.dim(1));
    const int64_t across = out.scale.dim(1);
    threads.parallel_for(out.scale.dim(0), 1, [&](int, int64_t begin, int64_t end) {
      std::vector<float> values(k);
      for (int64_t block = begin; block < end; ++block) {
        float* scales = out.scale.data<float>() + block * across;
        const int64_t first = block * kSide, last = std::min(first + kSide, weight.dim(0));
        std::vector<float> largest(static_cast<size_t>(across), 0.0f);
        for (int64_t row = first; row < last && amax.empty(); ++row) {
          read_weight_row(weight, row, values);
          for (size_t b = 0; b < largest.size(); ++b) largest[b] = std::max(largest[b], amax_of(part(values, b)));
        }
        for (size_t b = 0; b < largest.size(); ++b) {
          const float given = amax.empty() ? largest[b] : amax[static_cast<size_t>(block * across) + b];
          scales[b] = weight_scale(std::max(given, kMinBlockAmax));
        }
        for (int64_t row = first; row < last; ++row) {
          read_weight_row(weight, row, values);
          for (size_t b = 0; b < largest.size(); ++b) {
            for (float& value : part(values, b)) value /= scales[b];
          }
          write_weight_row(out.data, row, values);
        }
      }
    });
  }

  static std::span<float> part(std::vector<float>& values, size_t block) {
    const size_t first = block * kSide;
    return std::span<float>(values).subspan(first, std::min<size_t>(kSide, values.size() - first));
  }
};

}  // namespace

const QuantScheme& fp8_block_scheme() {
  static const Fp8BlockScheme scheme;
  return scheme;
}

}  // namespace octet
