#include "octet/ops/shape_check.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {

void ShapeCheck::dim(std::string_view dim_name, int64_t value, std::string_view where) {
  for (size_t i = 0; i < num_bindings_; ++i) {
    const Binding& bound = bindings_[i];
    if (bound.dim != dim_name) continue;
    if (bound.value == value) return;
    fail(ErrorCode::kInternal, "{}: {}: dimension {} is {} in {}, {} here", op_, where, dim_name, bound.value,
         bound.where, value);
  }
  OCTET_CHECK(num_bindings_ < bindings_.size());
  bindings_[num_bindings_++] = {dim_name, value, where};
}

void ShapeCheck::tensor(std::string_view name, const ConstTensor& tensor,
                        std::initializer_list<std::string_view> dims) {
  if (tensor.empty() && tensor.num_elements() > 0) fail(ErrorCode::kInternal, "{}: {} is missing", op_, name);
  if (tensor.rank() != static_cast<int>(dims.size())) {
    fail(ErrorCode::kInternal, "{}: {}: expected {} dimensions, found {}", op_, name, dims.size(),
         tensor.shape.to_string());
  }
  int i = 0;
  for (const std::string_view d : dims) dim(d, tensor.dim(i++), name);
}

void ShapeCheck::dtype(std::string_view name, const ConstTensor& tensor, std::initializer_list<DType> allowed) {
  if (std::find(allowed.begin(), allowed.end(), tensor.dtype) != allowed.end()) return;
  std::string names;
  for (const DType d : allowed) names += fmt::format("{}{}", names.empty() ? "" : ", ", dtype_name(d));
  fail(ErrorCode::kInternal, "{}: {}: dtype is {}, expected one of {}", op_, name, dtype_name(tensor.dtype), names);
}

void ShapeCheck::quantized(std::string_view name, const ConstQuantTensor& tensor,
                           std::initializer_list<std::string_view> dims) {
  OCTET_CHECK(dims.size() == 2);
  this->tensor(name, tensor.data, dims);
  that(tensor.data.dtype == tensor.format.dtype, "data has the dtype of its format");
  if (!tensor.format.quantized()) return;
  const Shape expected = tensor.format.scale_shape(tensor.data.dim(0), tensor.data.dim(1));
  if (tensor.scale.dtype != DType::kF32 || !(tensor.scale.shape == expected)) {
    fail(ErrorCode::kInternal, "{}: {}: scale is {} {}, expected f32 {}", op_, name, dtype_name(tensor.scale.dtype),
         tensor.scale.shape.to_string(), expected.to_string());
  }
  if (!tensor.format.zero_point) return;
  that(tensor.zero_point.dtype == DType::kI32 && tensor.zero_point.shape == expected,
       "zero points are i32 of the scale's shape");
}

void ShapeCheck::that(bool condition, std::string_view what) {
  if (!condition) fail(ErrorCode::kInternal, "{}: {} does not hold", op_, what);
}

}  // namespace octet
