// Device: where memory lies and kernels run. A value. The same program serves the CPU and NVIDIA GPUs; a build without
// CUDA, or a machine without a GPU, has the CPU alone.
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

// "auto" (the first GPU where there is one), "cpu", "cuda", "cuda:1". Throws Error{kUnsupported} for a device that this
// build or machine lacks, saying which it has and why there is no other.
Device parse_device(const std::string& text);
std::string device_name(Device device);
// Why there is no GPU to run on, as a half sentence; empty when there is one.
std::string why_no_gpu();

// A queue of work on a device, done in order; see stream.h. On the CPU work is done when the call returns.
struct Stream {
  Device device;
  void* handle = nullptr;  // cudaStream_t
};

// What kernels need to know of a GPU.
struct GpuProperties {
  std::string name;            // "NVIDIA H200"
  int compute_capability = 0;  // 10 * major + minor: 90 is Hopper
  int num_sms = 0;             // streaming multiprocessors
  int64_t l2_bytes = 0;
  int64_t max_shared_bytes = 0;  // of one CTA
  int64_t total_bytes = 0;
  int64_t peak_bytes_per_second = 0;  // of its memory, by clock and width: kernels reach some 93 %
};
// Throws Error{kUnsupported} for the CPU.
const GpuProperties& gpu_properties(Device device);

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
