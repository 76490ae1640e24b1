// What weights read from: a checkpoint's mapped tensors, checked against what a layer expects and accounted for.
// Internal to octet/checkpoint.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "octet/checkpoint/dummy_tile.h"
#include "octet/checkpoint/weights.h"

namespace octet {

// Part of a matrix. A vector [N] is read as the matrix [N, 1].
struct Region {
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t first_column = 0;
  int64_t num_columns = 0;
};

class TensorSource {
 public:
  explicit TensorSource(WeightSource& source) : source_(source) {}

  bool dummy() const { return source_.files == nullptr; }
  bool recording() const { return source_.mode == WeightSource::Mode::kRecord; }
  const TensorEntry* find(std::string_view name) const;

  // The mapped tensor, marked as asked for. Nothing when it is missing (recorded in source.missing).
  // Throws Error{kModel} when its shape is none of `shapes`.
  std::optional<ConstTensor> require(const std::string& name, std::span<const Shape> shapes);
  // The same for a tensor that may be absent: nothing then.
  std::optional<ConstTensor> optional(const std::string& name, std::span<const Shape> shapes);

  // A region of a matrix of real numbers of full shape `shape` ([N, K] or [N]) into `out`; dummy values when there are
  // no files; untouched when the tensor is missing. Reports progress and drops the pages.
  void read(const std::string& name, Shape shape, Region region, Tensor out);

  // What dummy weights are cut from when they are tiled.
  const DummyTile& dummy_tile();

  // After a tensor has been read: `bytes` of it.
  void done(const std::string& name, int64_t bytes);

 private:
  WeightSource& source_;
};

// The error for a tensor of a wrong dtype.
[[noreturn]] void fail_dtype(const SafetensorsFolder& files, const std::string& name, DType found,
                             std::string_view expected);
// The region of a tensor of rank 1 or 2, as a matrix.
ConstTensor region_of(ConstTensor tensor, const Region& region);

}  // namespace octet
