#include "octet/device/arena.h"

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kAlignment = 64;

}  // namespace

Arena::Arena(Device device, int64_t capacity_bytes) : buffer_(device, capacity_bytes, "activations") {}

Tensor Arena::make(DType dtype, Shape shape) {
  const int64_t num_bytes = shape.num_elements() * dtype_bytes(dtype);
  if (num_bytes < 0 || num_bytes > capacity_bytes() - used_) {
    fail(ErrorCode::kInternal, "activations: {} {} needs {} bytes, {} of {} are in use", dtype_name(dtype),
         shape.to_string(), num_bytes, used_, capacity_bytes());
  }
  const Tensor tensor = buffer_.tensor(dtype, shape, used_);
  used_ = std::min(capacity_bytes(), (used_ + num_bytes + kAlignment - 1) / kAlignment * kAlignment);
  peak_ = std::max(peak_, used_);
  return tensor;
}

}  // namespace octet
