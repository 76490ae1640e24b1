// Buffer: the only owner of tensor memory. Move-only; aligned to 64 bytes (GPU: 256); CPU pages are committed when
// first touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "octet/device/device.h"
#include "octet/tensor/tensor.h"

namespace octet {

// How the CPU's memory is committed. kHuge (2 MiB): streaming a large buffer misses the TLB less. kSmall (4 KiB): a
// buffer of which little is touched, here and there, costs what is touched.
enum class Pages : uint8_t { kHuge, kSmall };

class Buffer {
 public:
  Buffer() = default;
  // Throws Error{kMemory}: "<purpose>: needs 1.2 GiB, 0.8 GiB are available".
  Buffer(Device device, int64_t num_bytes, std::string_view purpose, Pages pages = Pages::kHuge);
  // Host memory that `gpu` copies to and from without waiting. Lies on the CPU: device() says so.
  static Buffer pinned(Device gpu, int64_t num_bytes, std::string_view purpose);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t num_bytes() const { return num_bytes_; }
  Device device() const { return device_; }
  // The whole buffer, or the part from byte `offset`, as a tensor.
  Tensor tensor(DType dtype, Shape shape, int64_t offset = 0) const;

 private:
  void release();

  Device device_;
  bool pinned_ = false;
  std::byte* data_ = nullptr;
  int64_t num_bytes_ = 0;
};

// Bytes that a new allocation on the device can still get (CPU: MemAvailable, bounded by the cgroup's limit; GPU: what
// the driver says is free).
int64_t available_memory_bytes(Device device);

}  // namespace octet
