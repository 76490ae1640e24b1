// Schemes with a scale for each tile of rows x columns, the last of which may be partial. "fp8_block": E4M3 in squares
// of 128 x 128, activations quantised by 128 channels of a token at run time. On disk as DeepSeek writes it
// (weight_scale_inv, which is multiplied like any scale) or compressed-tensors (weight_scale), [ceil(N / 128),
// ceil(K / 128)], or with ModelOpt's axes of 1 in between. A file may have blocks of other sizes, and groups of columns
// of a row, [N, ceil(K / g)]: "fp8_group", "int8_group".
#include <algorithm>

#include "octet/quant/schemes.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

class TileScheme final : public QuantScheme {
 public:
  explicit TileScheme(const QuantFormat& format) : format_(format) {
    OCTET_CHECK(format.group_cols > 0);
    OCTET_CHECK(format.granularity == Granularity::kGroup ||
                (format.granularity == Granularity::kBlock && format.group_rows > 0));
  }
  std::string_view name() const override {
    if (format_.dtype == DType::kI8) return "int8_group";
    return format_.granularity == Granularity::kGroup ? "fp8_group" : "fp8_block";
  }
  QuantFormat weight_format() const override { return format_; }
  QuantFormat activation_format() const override {
    QuantFormat format = kF8DynamicGroup;
    format.group_cols = format_.group_cols;
    return format_.dtype == DType::kI8 ? kI8DynamicToken : format;
  }

  std::vector<StoredTensor> stored_tensors(int64_t n, int64_t k) const override {
    const Shape tiles = format_.scale_shape(n, k);
    std::vector<Shape> shapes = {tiles, Shape{tiles[0], 1, tiles[1], 1}};
    if (tiles.num_elements() == 1) {  // ModelOpt
      shapes.push_back(Shape{});
      shapes.push_back(Shape{1});
    }
    return {stored_weight(format_.dtype, n, k), stored_scale(shapes)};
  }

 private:
  int64_t tile_rows() const { return format_.granularity == Granularity::kGroup ? 1 : format_.group_rows; }
  float scale_of(float amax) const {
    return format_.dtype == DType::kI8 ? int8_weight_scale(amax) : weight_scale(std::max(amax, kMinBlockAmax));
  }

  // A row of tiles at a time.
  void quantize_checked(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                        std::span<const float> amax) const override {
    const auto k = static_cast<size_t>(weight.dim(1));
    const int64_t across = out.scale.dim(1);
    threads.parallel_for(out.scale.dim(0), 1, [&](int, int64_t begin, int64_t end) {
      std::vector<float> values(k);
      for (int64_t tile = begin; tile < end; ++tile) {
        float* scales = out.scale.data<float>() + tile * across;
        const int64_t first = tile * tile_rows(), last = std::min(first + tile_rows(), weight.dim(0));
        std::vector<float> largest(static_cast<size_t>(across), 0.0f);
        for (int64_t row = first; row < last && amax.empty(); ++row) {
          read_weight_row(weight, row, values);
          for (size_t t = 0; t < largest.size(); ++t) largest[t] = std::max(largest[t], amax_of(part(values, t)));
        }
        for (size_t t = 0; t < largest.size(); ++t)
          scales[t] = scale_of(amax.empty() ? largest[t] : amax[static_cast<size_t>(tile * across) + t]);
        for (int64_t row = first; row < last; ++row) {
          read_weight_row(weight, row, values);
          for (size_t t = 0; t < largest.size(); ++t) {
            for (float& value : part(values, t)) value /= scales[t];
          }
          write_weight_row(out.data, row, values);
        }
      }
    });
  }

  std::span<float> part(std::vector<float>& values, size_t tile) const {
    const auto columns = static_cast<size_t>(format_.group_cols);
    const size_t first = tile * columns;
    return std::span<float>(values).subspan(first, std::min(columns, values.size() - first));
  }

  QuantFormat format_;
};

}  // namespace

const QuantScheme& fp8_block_scheme() {
  static const TileScheme scheme(kF8Block);
  return scheme;
}

std::shared_ptr<const QuantScheme> make_tile_scheme(const QuantFormat& format) {
  return std::make_shared<TileScheme>(format);
}

}  // namespace octet
