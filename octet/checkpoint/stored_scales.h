// The scales of a quantised weight on disk, checked and brought to F32, and the one scale of its static input.
// Internal to octet/checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/checkpoint/tensor_source.h"
#include "octet/quant/scheme.h"

namespace octet {

// One scale for each tile of rows x columns of a whole matrix: every cut of the matrix finds its own.
struct ScaleGrid {
  int64_t tile_rows = 1;
  int64_t tile_columns = 1;
  int64_t num_across = 1;
  std::vector<float> scales;

  ScaleGrid() = default;
  // The tiles of a [n, k] matrix in `format`.
  ScaleGrid(const QuantFormat& format, int64_t n, int64_t k, std::vector<float> scales);
  size_t index(int64_t row, int64_t column) const {
    return static_cast<size_t>(row / tile_rows * num_across + column / tile_columns);
  }
  float at(int64_t row, int64_t column) const { return scales[index(row, column)]; }
};

// Writes the scales of a part of the matrix, in `format`, to `out`, whose first row is the part's (its row of blocks).
// No scale of `format` covers several tiles: lossless.
void write_scales(const ScaleGrid& grid, const Region& region, const QuantFormat& format, Tensor out);
// The real numbers of a part of the matrix: codes * scale, rounded to out's dtype once.
void write_real(const ScaleGrid& grid, const Region& region, ConstTensor codes, Tensor out, ThreadPool& threads);

// And back, for a matrix that is quantised while loading: raises each tile's entry to the largest magnitude of its
// values in the part (NaN does not count), and writes codes = values / scale.
void take_maxima(ConstTensor values, const Region& region, ScaleGrid& maxima);
void write_codes(const ScaleGrid& grid, const Region& region, ConstTensor values, Tensor codes, ThreadPool& threads);

// A tensor of a module under whichever of its names the file has. Nothing when there is none: recorded as missing when
// it is required. Throws Error{kModel} for two of them, a wrong shape or a wrong dtype.
struct FoundTensor {
  std::string name;
  ConstTensor data;
};
std::optional<FoundTensor> find_stored(TensorSource& tensors, const SafetensorsFolder* files, const std::string& module,
                                       const StoredTensor& wanted);
// The numbers of a tensor as F32 (u8: powers of two, E8M0), all finite and above 0, else Error{kModel} by name.
std::vector<float> read_scales(const SafetensorsFolder& files, const FoundTensor& stored);
// The integers of a tensor of zero points.
std::vector<int32_t> read_zero_points(const FoundTensor& stored);

}  // namespace octet
