#include "octet/quantizer/source_tensor.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "octet/base/error.h"
#include "octet/checkpoint/copy_matrix.h"
#include "octet/quant/weight_rows.h"

namespace octet {

SourceTensor::SourceTensor(const SafetensorsFolder& files, const std::string& name, ThreadPool& threads)
    : files_(files), name_(name), view_(files.tensor(name)) {
  const auto width = static_cast<uintptr_t>(dtype_bytes(view_.dtype));
  if (reinterpret_cast<uintptr_t>(view_.bytes) % width != 0) {
    aligned_.resize(static_cast<size_t>(view_.num_bytes()));
    std::memcpy(aligned_.data(), view_.bytes, aligned_.size());
    view_ = ConstTensor(aligned_.data(), view_.dtype, view_.shape);
  }
  if (is_real(view_.dtype)) refuse_non_finite(threads);
}

void SourceTensor::apply(const Fold& fold, ThreadPool& threads) {
  if (fold.empty()) return;
  const int64_t count = view_.num_elements(), rows = view_.rank() > 1 ? view_.dim(0) : count, columns = count / rows;
  OCTET_CHECK(fold.rows.empty() || static_cast<int64_t>(fold.rows.size()) == rows);
  OCTET_CHECK(fold.columns.empty() || static_cast<int64_t>(fold.columns.size()) == columns);
  folded_.resize(static_cast<size_t>(count));
  for_each_weight_row(view_.reshape(Shape{rows, columns}), threads, [&](int64_t row, std::span<const float> values) {
    float* to = folded_.data() + row * columns;
    const float by = fold.rows.empty() ? 1.0f : fold.rows[static_cast<size_t>(row)];
    for (size_t k = 0; k < values.size(); ++k)
      to[k] = (fold.columns.empty() ? values[k] : values[k] * fold.columns[k]) / by;
  });
  view_ = ConstTensor(std::as_bytes(std::span(folded_)).data(), DType::kF32, view_.shape);
}

void SourceTensor::refuse_non_finite(ThreadPool& threads) const {
  const int64_t count = view_.num_elements();
  if (count == 0) return;
  const int64_t columns = view_.rank() > 1 ? view_.dim(-1) : count;
  const ConstTensor matrix = view_.reshape(Shape{count / columns, columns});
  std::atomic<int64_t> first = count;
  for_each_weight_row(matrix, threads, [&](int64_t row, std::span<const float> values) {
    // Zero times a finite number is zero: a sum that is vector code.
    float sum = 0.0f;
    for (const float value : values) sum += value * 0.0f;
    if (sum == 0.0f) return;
    for (size_t k = 0; k < values.size(); ++k) {
      if (std::isfinite(values[k])) continue;
      const int64_t at = row * columns + static_cast<int64_t>(k);
      for (int64_t seen = first; at < seen && !first.compare_exchange_weak(seen, at);) {
      }
      return;
    }
  });
  if (first == count) return;
  float value = 0.0f;
  read_weight_row(matrix.reshape(Shape{count, 1}), first, std::span(&value, 1));
  fail(ErrorCode::kModel, "{}: the number at [{}, {}] is {}, expected finite ones (in {})", name_, first / columns,
       first % columns, value, files_.file_of(name_));
}

}  // namespace octet
