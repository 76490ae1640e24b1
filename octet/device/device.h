// Device: where memory lies and kernels run. A value. Only the CPU exists in this build; CUDA joins behind the same
// types.
#pragma once

#include <cstdint>
#include <string>

namespace octet {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// "auto", "cpu", "cuda", "cuda:1". Throws Error{kUnsupported} for a device that this build or machine lacks, saying
// which it has.
Device parse_device(const std::string& text);
std::string device_name(Device device);

// An ordered queue of work on a device. On the CPU work is done when the call returns.
struct Stream {
  Device device;
  void* handle = nullptr;
};

// Instruction sets the kernels may use, asked once from the processor.
struct CpuFeatures {
  bool avx2_fma = false;  // AVX2, FMA and F16C
  bool avx512 = false;    // F, BW, DQ, VL
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
};
CpuFeatures cpu_features();
// "AMD EPYC ..., 2 threads, avx2 fma f16c"
std::string cpu_description();

}  // namespace octet
