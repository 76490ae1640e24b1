#include "octet/device/buffer.h"

#include <sys/mman.h>

#include <new>
#include <utility>

#include "octet/base/error.h"
#include "octet/device/cuda_runtime.h"
#include "octet/device/memory_limits.h"

namespace octet {
namespace {

constexpr size_t kAlignment = 64;
// From here on pages come straight from the operating system, committed one by one when first touched.
constexpr int64_t kMapFrom = int64_t{1} << 18;
constexpr int64_t kHugePage = int64_t{2} << 20;
// From here on the available memory is asked first: the kernel promises pages that it cannot deliver, and then kills.
constexpr int64_t kCheckFrom = int64_t{64} << 20;

std::string readable_bytes(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return fmt::format("{:.2f} GiB", value / 0x1p30);
  if (bytes >= int64_t{1} << 20) return fmt::format("{:.1f} MiB", value / 0x1p20);
  return fmt::format("{} bytes", bytes);
}

[[noreturn]] void out_of_memory(Device device, int64_t num_bytes, std::string_view purpose) {
  fail(ErrorCode::kMemory, "{}: needs {}, {} are available on {}", purpose, readable_bytes(num_bytes),
       readable_bytes(available_memory_bytes(device)), device_name(device));
}

// Pages of 2 MiB where the buffer is large: a matmul that streams weights would otherwise miss the TLB on every 4 KiB.
// They need 2 MiB alignment, so more is mapped and the ends are given back.
std::byte* map_pages(int64_t num_bytes, Pages pages) {
  const int64_t slack = num_bytes >= kHugePage && pages == Pages::kHuge ? kHugePage : 0;
  void* mapped = mmap(nullptr, static_cast<size_t>(num_bytes + slack), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* data = static_cast<std::byte*>(mapped);
  if (slack == 0) return data;
  constexpr int64_t kPage = 4096;
  const int64_t used = (num_bytes + kPage - 1) / kPage * kPage;
  const int64_t head = (kHugePage - static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) % kHugePage)) % kHugePage;
  if (head > 0) munmap(data, static_cast<size_t>(head));
  const int64_t tail = (num_bytes + slack + kPage - 1) / kPage * kPage - head - used;
  if (tail > 0) munmap(data + head + used, static_cast<size_t>(tail));
  madvise(data + head, static_cast<size_t>(num_bytes), MADV_HUGEPAGE);  // a wish: its failure changes speed only
  return data + head;
}

std::byte* allocate_on_cpu(int64_t num_bytes, Pages pages) {
  if (num_bytes >= kMapFrom) return map_pages(num_bytes, pages);
  return static_cast<std::byte*>(
      ::operator new(static_cast<size_t>(num_bytes), std::align_val_t(kAlignment), std::nothrow));
}

void release_on_cpu(std::byte* data, int64_t num_bytes) {
  if (num_bytes >= kMapFrom) {
    munmap(data, static_cast<size_t>(num_bytes));
  } else {
    ::operator delete(data, std::align_val_t(kAlignment));
  }
}

void check_size(int64_t num_bytes, std::string_view purpose) {
  if (num_bytes >= 0 && num_bytes <= int64_t{1} << 47) return;
  // An overflowed product, or more than an address space.
  fail(ErrorCode::kMemory, "{}: needs {} bytes, which no machine has", purpose, num_bytes);
}

}  // namespace

int64_t available_memory_bytes(Device device) {
  return device.kind == DeviceKind::kCpu ? read_available_memory() : cuda::available_bytes(device.index);
}

Buffer::Buffer(Device device, int64_t num_bytes, std::string_view purpose, Pages pages) : device_(device) {
  check_size(num_bytes, purpose);
  if (num_bytes == 0) return;
  if (device.kind == DeviceKind::kCuda) {
    data_ = cuda::allocate(device.index, num_bytes);
  } else {
    if (num_bytes >= kCheckFrom && num_bytes > available_memory_bytes(device))
      out_of_memory(device, num_bytes, purpose);
    data_ = allocate_on_cpu(num_bytes, pages);
  }
  if (data_ == nullptr) out_of_memory(device, num_bytes, purpose);
  num_bytes_ = num_bytes;
}

Buffer Buffer::pinned(Device gpu, int64_t num_bytes, std::string_view purpose) {
  OCTET_CHECK(gpu.kind == DeviceKind::kCuda);
  check_size(num_bytes, purpose);
  Buffer buffer;
  if (num_bytes == 0) return buffer;
  buffer.pinned_ = true;
  buffer.data_ = cuda::allocate_pinned(num_bytes);
  if (buffer.data_ == nullptr) out_of_memory(Device{}, num_bytes, purpose);
  buffer.num_bytes_ = num_bytes;
  return buffer;
}

Buffer::~Buffer() { release(); }

void Buffer::release() {
  if (data_ == nullptr) return;
  if (pinned_) {
    cuda::release_pinned(data_);
  } else if (device_.kind == DeviceKind::kCuda) {
    cuda::release(data_);
  } else {
    release_on_cpu(data_, num_bytes_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_),
      pinned_(other.pinned_),
      data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  release();
  device_ = other.device_;
  pinned_ = other.pinned_;
  data_ = std::exchange(other.data_, nullptr);
  num_bytes_ = std::exchange(other.num_bytes_, 0);
  return *this;
}

Tensor Buffer::tensor(DType dtype, Shape shape, int64_t offset) const {
  const int64_t bytes = shape.num_elements() * dtype_bytes(dtype);
  OCTET_CHECK(offset >= 0 && bytes >= 0 && offset <= num_bytes_ && bytes <= num_bytes_ - offset);
  OCTET_CHECK(offset % dtype_bytes(dtype) == 0);
  return Tensor(data_ == nullptr ? nullptr : data_ + offset, dtype, shape);
}

}  // namespace octet
