// The one door to all kernels: tables of them per device. Rows of faster backends come first; on the CPU the reference
// row is last.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

enum class KernelSelection {
  kFastest,        // every kernel of the device, reference rows last
  kDeterministic,  // those whose bits for a token depend on its own sequence alone: not on the batch, nor on how the
                   // prompt was cut. On the CPU that is every kernel.
  kReferenceOnly,  // the specification alone, on the CPU: what tests compare with
};

// Whether rows other than the last resorts make the input of a linear of weight [n, k] and multiply it, for one token
// and for many; a plain activation is what the backend makes.
bool has_fast_linear(const Backend& backend, const QuantFormat& weight, const QuantFormat& activation, int64_t n,
                     int64_t k);

// What a rank lets a GPU's kernels share between their CTAs: partial sums of an attention or a matmul that is split.
inline constexpr int64_t kGpuWorkspaceBytes = int64_t{128} << 20;

// What kernels are asked with whether they would take an op, before there is a stream to run it on.
Launch describing_launch(Device device, ThreadPool& threads);

// What layers make their activations in: f32 on the CPU, bf16 on a GPU.
DType activation_dtype(Device device);

const KernelTable& kernel_table(Device device, KernelSelection selection = KernelSelection::kFastest);

}  // namespace octet
