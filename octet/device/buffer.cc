#include "octet/device/buffer.h"

#include <sys/mman.h>

#include <new>
#include <utility>

#include "octet/base/error.h"
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

[[noreturn]] void out_of_memory(int64_t num_bytes, std::string_view purpose) {
  fail(ErrorCode::kMemory, "{}: needs {}, {} are available", purpose, readable_bytes(num_bytes),
       readable_bytes(available_memory_bytes(Device{})));
}

// Pages of 2 MiB where the buffer is large: a matmul that streams weights would otherwise miss the TLB on every 4 KiB.
// They need 2 MiB alignment, so more is mapped and the ends are given back.
std::byte* map_pages(int64_t num_bytes) {
  const int64_t slack = num_bytes >= kHugePage ? kHugePage : 0;
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

void release(std::byte* data, int64_t num_bytes) {
  if (data == nullptr) return;
  if (num_bytes >= kMapFrom) {
    munmap(data, static_cast<size_t>(num_bytes));
  } else {
    ::operator delete(data, std::align_val_t(kAlignment));
  }
}

}  // namespace

int64_t available_memory_bytes(Device device) {
  if (device.kind != DeviceKind::kCpu)
    fail(ErrorCode::kUnsupported, "{}: not in this build of octet", device_name(device));
  return read_available_memory();
}

Buffer::Buffer(Device device, int64_t num_bytes, std::string_view purpose) : device_(device) {
  if (device.kind != DeviceKind::kCpu)
    fail(ErrorCode::kUnsupported, "{}: {}: not in this build of octet", purpose, device_name(device));
  if (num_bytes < 0 || num_bytes > int64_t{1} << 47) {  // an overflowed product, or more than an address space
    fail(ErrorCode::kMemory, "{}: needs {} bytes, which no machine has", purpose, num_bytes);
  }
  if (num_bytes == 0) return;
  if (num_bytes >= kCheckFrom && num_bytes > available_memory_bytes(device)) out_of_memory(num_bytes, purpose);
  data_ = num_bytes >= kMapFrom ? map_pages(num_bytes)
                                : static_cast<std::byte*>(::operator new(static_cast<size_t>(num_bytes),
                                                                         std::align_val_t(kAlignment), std::nothrow));
  if (data_ == nullptr) out_of_memory(num_bytes, purpose);
  num_bytes_ = num_bytes;
}

Buffer::~Buffer() { release(data_, num_bytes_); }

Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  release(data_, num_bytes_);
  device_ = other.device_;
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
