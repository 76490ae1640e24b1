#include "octet/checkpoint/stored_scales.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "octet/base/error.h"
#include "octet/quant/weight_rows.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

// 2^(code - 127).
float e8m0(uint8_t code) { return std::ldexp(code == 255 ? std::nanf("") : 1.0f, code - 127); }

template <class T>
T element(const ConstTensor& tensor, int64_t i) {  // may lie at any address
  T value;
  std::memcpy(&value, tensor.bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

}  // namespace

ScaleGrid::ScaleGrid(const QuantFormat& format, int64_t n, int64_t k, std::vector<float> scales_)
    : tile_rows(std::max<int64_t>(1, n)), tile_columns(std::max<int64_t>(1, k)), scales(std::move(scales_)) {
  if (format.granularity == Granularity::kChannel) tile_rows = 1;
  if (format.granularity == Granularity::kGroup || format.granularity == Granularity::kBlock) {
    tile_rows = format.granularity == Granularity::kGroup ? 1 : format.group_rows;
    tile_columns = format.group_cols;
    num_across = (k + tile_columns - 1) / tile_columns;
  }
  OCTET_CHECK(static_cast<int64_t>(scales.size()) == (n + tile_rows - 1) / tile_rows * num_across);
}

void write_scales(const ScaleGrid& grid, const Region& region, const QuantFormat& format, Tensor out) {
  const ScaleGrid shape(
      format, region.num_rows, region.num_columns,
      std::vector<float>(static_cast<size_t>(format.scale_shape(region.num_rows, region.num_columns).num_elements())));
  float* to = out.data<float>();
  for (int64_t row = 0; row < region.num_rows; row += shape.tile_rows) {
    for (int64_t column = 0; column < region.num_columns; column += shape.tile_columns)
      *to++ = grid.at(region.first_row + row, region.first_column + column);
  }
}

void write_real(const ScaleGrid& grid, const Region& region, ConstTensor codes, Tensor out, ThreadPool& threads) {
  for_each_weight_row(codes, threads, [&](int64_t row, std::span<float> values) {
    for (size_t k = 0; k < values.size(); ++k)
      values[k] *= grid.at(region.first_row + row, region.first_column + static_cast<int64_t>(k));
    write_weight_row(out, row, values);
  });
}

void take_maxima(ConstTensor values, const Region& region, ScaleGrid& maxima) {
  std::vector<float> row(static_cast<size_t>(region.num_columns));
  for (int64_t r = 0; r < region.num_rows; ++r) {
    read_weight_row(values, r, row);
    for (int64_t k = 0; k < region.num_columns;) {
      // As far as the tile goes.
      const int64_t column = region.first_column + k;
      const int64_t count = std::min(maxima.tile_columns - column % maxima.tile_columns, region.num_columns - k);
      float& largest = maxima.scales[maxima.index(region.first_row + r, column)];
      largest = std::max(largest, amax_of(std::span(row).subspan(static_cast<size_t>(k), static_cast<size_t>(count))));
      k += count;
    }
  }
}

void write_codes(const ScaleGrid& grid, const Region& region, ConstTensor values, Tensor codes, ThreadPool& threads) {
  for_each_weight_row(values, threads, [&](int64_t row, std::span<float> numbers) {
    for (size_t k = 0; k < numbers.size(); ++k)
      numbers[k] /= grid.at(region.first_row + row, region.first_column + static_cast<int64_t>(k));
    write_weight_row(codes, row, numbers);
  });
}

std::optional<FoundTensor> find_stored(TensorSource& tensors, const SafetensorsFolder* files, const std::string& module,
                                       const StoredTensor& wanted) {
  std::vector<std::string> names;
  for (const std::string_view suffix : wanted.suffixes) {
    std::string name = fmt::format("{}.{}", module, suffix);
    if (tensors.find(name) != nullptr) names.push_back(std::move(name));
  }
  if (names.size() > 1) fail(ErrorCode::kModel, "{} and {}: expected one of them", names[0], names[1]);
  const bool required = wanted.presence == StoredTensor::Presence::kRequired;
  const std::string name = names.empty() ? fmt::format("{}.{}", module, wanted.suffixes.at(0)) : names[0];
  const auto data = required ? tensors.require(name, wanted.shapes) : tensors.optional(name, wanted.shapes);
  if (!data) return std::nullopt;
  if (std::find(wanted.dtypes.begin(), wanted.dtypes.end(), data->dtype) == wanted.dtypes.end()) {
    std::string expected;
    for (const DType dtype : wanted.dtypes)
      expected += (expected.empty() ? "" : " or ") + std::string(dtype_name(dtype));
    fail_dtype(*files, name, data->dtype, expected);
  }
  return FoundTensor{name, *data};
}

std::vector<float> read_scales(const SafetensorsFolder& files, const FoundTensor& stored) {
  const ConstTensor& data = stored.data;
  std::vector<float> scales(static_cast<size_t>(data.num_elements()));
  for (int64_t i = 0; i < data.num_elements(); ++i) {
    float& scale = scales[static_cast<size_t>(i)];
    if (data.dtype == DType::kU8) {
      scale = e8m0(element<uint8_t>(data, i));
    } else {
      dispatch<DType::kF32, DType::kBF16, DType::kF16>(data.dtype,
                                                       [&]<DType D>() { scale = to_f32(element<CType<D>>(data, i)); });
    }
    if (!std::isfinite(scale) || scale <= 0.0f) {
      fail(ErrorCode::kModel, "{}: {} {}, expected a number above 0 (in {})", stored.name,
           scales.size() == 1 ? "the scale is" : "a scale is", scale, files.file_of(stored.name));
    }
  }
  return scales;
}

std::vector<int32_t> read_zero_points(const FoundTensor& stored) {
  std::vector<int32_t> points(static_cast<size_t>(stored.data.num_elements()));
  for (size_t i = 0; i < points.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (stored.data.dtype == DType::kI32) {
      points[i] = element<int32_t>(stored.data, at);
    } else if (stored.data.dtype == DType::kI64) {
      points[i] = static_cast<int32_t>(element<int64_t>(stored.data, at));
    } else {  // i8, or f8_e4m3 zeros of older files
      points[i] = element<int8_t>(stored.data, at);
    }
  }
  return points;
}

}  // namespace octet
