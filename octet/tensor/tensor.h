// Tensor: a view of bytes as an n-dimensional array. Owns nothing, trivially copyable; Buffer and MappedFile own bytes.
// Rows are contiguous; only the outermost stride may be larger than its row (a column slice of a fused projection).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "octet/base/error.h"
#include "octet/tensor/bf16.h"
#include "octet/tensor/dtype.h"
#include "octet/tensor/float8.h"

namespace octet {

inline constexpr int kMaxDims = 4;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    OCTET_CHECK(dims.size() <= kMaxDims);
    for (int64_t dim : dims) dims_[static_cast<size_t>(rank_++)] = dim;
  }
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t& operator[](int i) { return dims_[static_cast<size_t>(i)]; }
  void append(int64_t dim) {
    OCTET_CHECK(rank_ < kMaxDims);
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
  int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= (*this)[i];
    return n;
  }
  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i) {
      if ((*this)[i] != other[i]) return false;
    }
    return true;
  }
  std::string to_string() const;  // "[4096, 11008]"

 private:
  std::array<int64_t, kMaxDims> dims_{};
  int rank_ = 0;
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<F16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<F8E4M3> {
  static constexpr DType value = DType::kF8E4M3;
};
template <>
struct DTypeOf<F8E5M2> {
  static constexpr DType value = DType::kF8E5M2;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::kI8;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};

// A mutable (Bytes = std::byte) or constant (const std::byte) view.
template <class Bytes>
struct BasicTensor {
  Bytes* bytes = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t row_stride = 0;  // elements between consecutive indices of dimension 0

  BasicTensor() = default;
  BasicTensor(Bytes* bytes_, DType dtype_, Shape shape_)
      : bytes(bytes_),
        dtype(dtype_),
        shape(shape_),
        row_stride(shape_.rank() > 0 && shape_[0] > 0 ? shape_.num_elements() / shape_[0] : 0) {}
  template <class Other>
  requires(std::is_const_v<Bytes> && !std::is_const_v<Other>)
      BasicTensor(const BasicTensor<Other>& other)  // NOLINT: a view of constants is implicit, as with span
      : bytes(other.bytes), dtype(other.dtype), shape(other.shape), row_stride(other.row_stride) {}

  bool empty() const { return bytes == nullptr; }
  explicit operator bool() const { return bytes != nullptr; }
  int rank() const { return shape.rank(); }
  int64_t dim(int i) const { return shape[i < 0 ? shape.rank() + i : i]; }
  int64_t num_elements() const { return shape.num_elements(); }
  int64_t num_bytes() const { return num_elements() * dtype_bytes(dtype); }  // without gaps between rows
  bool contiguous() const { return rank() == 0 || dim(0) <= 1 || row_stride == num_elements() / dim(0); }

  template <class T>
  auto data() const {
    OCTET_CHECK(DTypeOf<T>::value == dtype);
    return reinterpret_cast<std::conditional_t<std::is_const_v<Bytes>, const T*, T*>>(bytes);
  }
  template <class T>
  auto row(int64_t i) const {
    return data<T>() + i * row_stride;
  }

  // Rows [begin, begin + count) of dimension 0.
  BasicTensor rows(int64_t begin, int64_t count) const {
    OCTET_CHECK(begin >= 0 && count >= 0 && begin + count <= dim(0));
    BasicTensor part = *this;
    part.bytes = bytes + begin * row_stride * dtype_bytes(dtype);
    part.shape[0] = count;
    return part;
  }
  // Columns [begin, begin + count) of a matrix: same rows, same stride.
  BasicTensor columns(int64_t begin, int64_t count) const {
    OCTET_CHECK(rank() == 2 && begin >= 0 && count >= 0 && begin + count <= dim(1));
    BasicTensor part = *this;
    part.bytes = bytes + begin * dtype_bytes(dtype);
    part.shape[1] = count;
    return part;
  }
  // Index i of dimension 0, without that dimension: matrix i of a contiguous stack [E, N, K].
  BasicTensor slice(int64_t i) const {
    OCTET_CHECK(rank() > 1 && contiguous() && i >= 0 && i < dim(0));
    Shape part;
    for (int d = 1; d < rank(); ++d) part.append(shape[d]);
    return BasicTensor(bytes + i * part.num_elements() * dtype_bytes(dtype), dtype, part);
  }
  // The same bytes under another shape of as many elements; contiguous tensors only.
  BasicTensor reshape(Shape other) const {
    OCTET_CHECK(contiguous() && other.num_elements() == num_elements());
    return BasicTensor(bytes, dtype, other);
  }
};

using Tensor = BasicTensor<std::byte>;
using ConstTensor = BasicTensor<const std::byte>;

// An on-disk tensor as a checkpoint lists it.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

}  // namespace octet
