#include "octet/device/stream.h"

#include <cstring>
#include <utility>

#include "octet/base/error.h"
#include "octet/device/cuda_runtime.h"

namespace octet {
namespace {

bool is_gpu(Device device) { return device.kind == DeviceKind::kCuda; }

}  // namespace

StreamOwner::StreamOwner(Device device)
    : stream_{.device = device, .handle = is_gpu(device) ? cuda::make_stream(device.index) : nullptr} {}

StreamOwner::~StreamOwner() {
  if (stream_.handle != nullptr) cuda::release_stream(stream_.handle);
}

StreamOwner::StreamOwner(StreamOwner&& other) noexcept
    : stream_{.device = other.stream_.device, .handle = std::exchange(other.stream_.handle, nullptr)} {}

StreamOwner& StreamOwner::operator=(StreamOwner&& other) noexcept {
  std::swap(stream_, other.stream_);
  return *this;
}

void make_current(Device device) {
  if (is_gpu(device)) cuda::make_current(device.index);
}

void synchronize(Stream stream) {
  if (is_gpu(stream.device)) cuda::synchronize(stream.handle);
}

Event::Event(Device device) : device_(device), handle_(is_gpu(device) ? cuda::make_event(device.index) : nullptr) {}

Event::~Event() {
  if (handle_ != nullptr) cuda::release_event(handle_);
}

Event::Event(Event&& other) noexcept : device_(other.device_), handle_(std::exchange(other.handle_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  return *this;
}

void Event::record(Stream stream) {
  if (handle_ != nullptr) cuda::record(handle_, stream.handle);
}

bool Event::is_done() const { return handle_ == nullptr || cuda::is_done(handle_); }

void Event::wait() const {
  if (handle_ != nullptr) cuda::wait_on_host(handle_);
}

void Event::make_wait(Stream stream) const {
  if (handle_ != nullptr) cuda::wait_on_stream(handle_, stream.handle);
}

double Event::milliseconds_since(const Event& start) const {
  OCTET_CHECK(handle_ != nullptr && start.handle_ != nullptr);
  return cuda::milliseconds_between(start.handle_, handle_);
}

void copy(Tensor to, ConstTensor from, Stream stream) {
  OCTET_CHECK(to.num_bytes() == from.num_bytes());
  if (to.contiguous() && from.contiguous()) return copy_bytes(to.bytes, from.bytes, from.num_bytes(), stream);
  OCTET_CHECK(to.shape == from.shape && to.dtype == from.dtype);
  const int64_t rows = to.dim(0), element = dtype_bytes(to.dtype), row_bytes = to.num_bytes() / rows;
  if (row_bytes == 0) return;
  const int64_t to_stride = to.row_stride * element, from_stride = from.row_stride * element;
  if (is_gpu(stream.device))
    return cuda::copy_rows(to.bytes, to_stride, from.bytes, from_stride, row_bytes, rows, stream.handle);
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(to.bytes + r * to_stride, from.bytes + r * from_stride, static_cast<size_t>(row_bytes));
}

void copy_bytes(void* to, const void* from, int64_t num_bytes, Stream stream) {
  if (num_bytes == 0) return;
  if (is_gpu(stream.device)) return cuda::copy(to, from, num_bytes, stream.handle);
  std::memcpy(to, from, static_cast<size_t>(num_bytes));
}

void fill_bytes(void* to, std::byte value, int64_t num_bytes, Stream stream) {
  if (num_bytes == 0) return;
  if (is_gpu(stream.device)) return cuda::fill(to, value, num_bytes, stream.handle);
  std::memset(to, static_cast<int>(value), static_cast<size_t>(num_bytes));
}

}  // namespace octet
