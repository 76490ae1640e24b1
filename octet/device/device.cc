#include "octet/device/device.h"

#include <array>
#include <charconv>
#include <cstring>
#include <mutex>
#include <optional>

#include "octet/base/error.h"
#include "octet/base/thread_pool.h"
#include "octet/device/cuda_runtime.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace octet {
namespace {

#if defined(__x86_64__)

struct CpuId {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros for a leaf that the processor lacks.
CpuId cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  CpuId id;
  __get_cpuid_count(leaf, subleaf, &id.eax, &id.ebx, &id.ecx, &id.edx);
  return id;
}

// Which register states the operating system saves on a switch: without its help the wide registers may not be used.
uint64_t saved_register_states() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

constexpr bool bit(uint32_t word, int index) { return ((word >> index) & 1u) != 0; }

CpuFeatures ask_processor() {
  CpuFeatures features;
  const CpuId basic = cpuid(1);
  if (!bit(basic.ecx, 27)) return features;  // OSXSAVE: xgetbv exists
  const uint64_t saved = saved_register_states();
  const bool ymm_saved = (saved & 0x6u) == 0x6u;
  const bool zmm_saved = (saved & 0xe6u) == 0xe6u;
  const CpuId extended = cpuid(7);
  const CpuId extended_1 = extended.eax >= 1 ? cpuid(7, 1) : CpuId{};
  features.avx2_fma =
      ymm_saved && bit(basic.ecx, 12) && bit(basic.ecx, 28) && bit(basic.ecx, 29) && bit(extended.ebx, 5);
  features.avx512 = features.avx2_fma && zmm_saved && bit(extended.ebx, 16) && bit(extended.ebx, 17) &&
                    bit(extended.ebx, 30) && bit(extended.ebx, 31);
  features.avx512_vnni = features.avx512 && bit(extended.ecx, 11);
  features.avx512_bf16 = features.avx512 && bit(extended_1.eax, 5);
  return features;
}

std::string processor_name() {
  if (cpuid(0x80000000u).eax < 0x80000004u) return "x86-64";
  char text[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const CpuId id = cpuid(0x80000002u + i);
    const uint32_t words[4] = {id.eax, id.ebx, id.ecx, id.edx};
    std::memcpy(text + 16 * i, words, sizeof(words));
  }
  std::string name(text);
  const size_t first = name.find_first_not_of(' ');
  if (first == std::string::npos) return "x86-64";
  return name.substr(first, name.find_last_not_of(' ') - first + 1);
}

#else

CpuFeatures ask_processor() { return {}; }
std::string processor_name() { return "unknown processor"; }

#endif

}  // namespace

CpuFeatures cpu_features() {
  static const CpuFeatures features = ask_processor();
  return features;
}

std::string cpu_description() {
  const CpuFeatures features = cpu_features();
  std::string text = fmt::format("{}, {} threads,", processor_name(), ThreadPool::default_num_threads());
  if (features.avx2_fma) text += " avx2 fma f16c";
  if (features.avx512) text += " avx512";
  if (features.avx512_vnni) text += " avx512_vnni";
  if (features.avx512_bf16) text += " avx512_bf16";
  if (!features.avx2_fma) text += " no vector extensions that octet uses";
  return text;
}

Device parse_device(const std::string& text) {
  if (text == "cpu") return Device{};
  const int num_gpus = cuda::num_devices();
  if (text == "auto") return num_gpus > 0 ? Device{.kind = DeviceKind::kCuda} : Device{};
  int index = 0;
  const bool named = text == "cuda";
  if (!named) {
    const std::string_view digits = std::string_view(text).substr(std::min<size_t>(5, text.size()));
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (!text.starts_with("cuda:") || error != std::errc{} || end != digits.data() + digits.size() || index < 0)
      fail(ErrorCode::kUnsupported, "device \"{}\": expected auto, cpu, cuda or cuda:<index>", text);
  }
  if (num_gpus == 0) fail(ErrorCode::kUnsupported, "device \"{}\": {}; there is: cpu", text, cuda::why_none());
  if (index >= num_gpus) fail(ErrorCode::kUnsupported, "device \"{}\": there are {} GPUs", text, num_gpus);
  return Device{.kind = DeviceKind::kCuda, .index = index};
}

const GpuProperties& gpu_properties(Device device) {
  constexpr int kMaxGpus = 64;
  static std::array<std::optional<GpuProperties>, kMaxGpus> known;
  static std::mutex mutex;
  if (device.kind != DeviceKind::kCuda || device.index < 0 || device.index >= kMaxGpus)
    fail(ErrorCode::kUnsupported, "{} is no GPU", device_name(device));
  const std::lock_guard lock(mutex);
  std::optional<GpuProperties>& properties = known[static_cast<size_t>(device.index)];
  if (!properties) properties = cuda::properties(device.index);
  return *properties;
}

std::string why_no_gpu() { return cuda::num_devices() > 0 ? std::string() : cuda::why_none(); }

std::string device_name(Device device) {
  return device.kind == DeviceKind::kCpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

}  // namespace octet
