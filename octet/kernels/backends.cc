// The one file that names the backends.
#include "octet/kernels/backends.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/kernels/cpu/cpu.h"
#include "octet/kernels/gpu.h"
#include "octet/kernels/reference/reference.h"

namespace octet {
namespace {

KernelTable make_reference_table() {
  KernelTable table;
  add_reference_kernels(table);
  add_reference_fusions(table);
  return table;
}

KernelTable make_cpu_table() {
  KernelTable table;
  add_cpu_kernels(table);
  add_reference_kernels(table);
  return table;
}

// GPU memory is out of the reference kernels' reach: what no row takes is an error that names all rows.
KernelTable make_cuda_table() {
  KernelTable table;
  add_hopper_kernels(table);
  add_cuda_kernels(table);
  return table;
}

KernelTable make_deterministic_cuda_table() {
  KernelTable table;
  add_deterministic_hopper_kernels(table);
  add_cuda_kernels(table);
  return table;
}

// A matrix that is only described: its address is never read.
QuantTensor described(const QuantFormat& format, int64_t rows, int64_t cols) {
  alignas(64) static std::byte place[64];
  const Tensor data(place, format.dtype, Shape{rows, cols});
  if (!format.quantized()) return QuantTensor(data);
  QuantTensor matrix(data, Tensor(place, DType::kF32, format.scale_shape(rows, cols)), format);
  if (format.zero_point) matrix.zero_point = Tensor(place, DType::kI32, matrix.scale.shape);
  return matrix;
}

}  // namespace

bool has_fast_linear(const Backend& backend, const QuantFormat& weight, const QuantFormat& activation, int64_t n,
                     int64_t k) {
  // The last row of a table takes nearly everything and is written to be right.
  const auto multiplies_fast = [&](const MatmulOp& op) {
    const std::string_view chosen = backend.choose(op).chosen;
    return !chosen.empty() && chosen != backend.table().of<MatmulOp>().back().name;
  };
  const auto quantizes_fast = [&](const QuantizeOp& op) {
    const std::string_view chosen = backend.choose(op).chosen;
    return !chosen.empty() &&
           chosen != kernel_table(Device{}, KernelSelection::kReferenceOnly).of<QuantizeOp>().front().name;
  };
  constexpr int64_t kNumTokens[] = {1, 256};  // of a decode step and of a prompt
  const QuantFormat made = plain_format(backend.activation_dtype());
  return std::ranges::all_of(kNumTokens, [&](int64_t t) {
    const QuantTensor x = described(activation.quantized() ? activation : made, t, k);
    if (activation.quantized() && !quantizes_fast({.out = x, .x = described(made, t, k).data})) return false;
    return multiplies_fast({.out = described(made, t, n).data, .x = x, .weight = described(weight, n, k), .bias = {}});
  });
}

Launch describing_launch(Device device, ThreadPool& threads) {
  const bool gpu = device.kind == DeviceKind::kCuda;
  return {.stream = {.device = device},
          .threads = &threads,
          .features = cpu_features(),
          .gpu = gpu ? &gpu_properties(device) : nullptr,
          .workspace = {.data = nullptr, .num_bytes = gpu ? kGpuWorkspaceBytes : 0}};
}

DType activation_dtype(Device device) { return device.kind == DeviceKind::kCuda ? DType::kBF16 : DType::kF32; }

const KernelTable& kernel_table(Device device, KernelSelection selection) {
  static const KernelTable reference = make_reference_table();
  static const KernelTable cpu = make_cpu_table();
  static const KernelTable cuda = make_cuda_table();
  static const KernelTable deterministic_cuda = make_deterministic_cuda_table();
  if (selection == KernelSelection::kReferenceOnly) return reference;
  if (device.kind == DeviceKind::kCpu) return cpu;
  return selection == KernelSelection::kDeterministic ? deterministic_cuda : cuda;
}

}  // namespace octet
