// How every GPU kernel of octet is launched: with programmatic dependent launch, so that a kernel's CTAs start while
// the kernel before it in the stream drains. The contract of each kernel, without which it would race:
//   - it calls wait_for_previous() before it reads or writes anything that another kernel writes or reads. Only what no
//     kernel of a step writes may be read before: weights and their scales; the step's integers but for token ids, and
//     the cache of tokens before the step. Between steps there are copies and cuda.move_ints, which wait for all
//     kernels before them and for which all kernels behind them wait; A kernel that reads a mixture's plan calls
//     start_next() after wait_for_previous() only: so the kernel behind it may read the plan at once (but through L2: a
//     processor's first cache may hold that of a step before);
//   - it calls start_next() once its CTAs no longer need the whole SM (from any one thread per CTA; when it is never
//     called the next kernel starts at the end);
//   - wait_for_previous() waits for the whole kernel before, its memory included, and through it for all before that.
#pragma once

#include <cuda_runtime.h>

#include <string_view>
#include <utility>

#include "octet/base/error.h"
#include "octet/ops/op.h"

namespace octet {

__device__ inline void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void start_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

struct LaunchShape {
  dim3 grid;
  dim3 block;
  int64_t shared_bytes = 0;  // dynamic; above 48 KiB allow_shared_bytes() must have been called for the kernel
  int cluster = 1;           // CTAs along x
  bool overlaps = true;      // with the kernel before; else its CTAs start when that has ended
};

inline void check_cuda(cudaError_t status, std::string_view what) {
  if (status != cudaSuccess) fail(ErrorCode::kInternal, "{}: {}", what, cudaGetErrorString(status));
}

// Lets `kernel` have num_bytes of dynamic shared memory on the current device.
template <class Kernel>
void allow_shared_bytes(Kernel* kernel, int64_t num_bytes) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(num_bytes)),
             "cudaFuncSetAttribute");
}

// A launch as the runtime wants it.
struct LaunchConfig {
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};

  explicit LaunchConfig(const LaunchShape& shape, cudaStream_t stream = nullptr) {
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = shape.overlaps ? 1 : 0;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attributes[1].val.clusterDim.y = 1;
    attributes[1].val.clusterDim.z = 1;
    config.gridDim = shape.grid;
    config.blockDim = shape.block;
    config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = shape.cluster > 1 ? 2 : 1;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
};

// Queues kernel(args...) on the launch's stream. `name` is the row's, for errors.
template <class... Params, class... Args>
void launch_kernel(std::string_view name, const Launch& launch, const LaunchShape& shape, void (*kernel)(Params...),
                   Args&&... args) {
  if (launch.observer != nullptr && !launch.observer->queues(name)) return;
  const LaunchConfig launched(shape, static_cast<cudaStream_t>(launch.stream.handle));
  check_cuda(cudaLaunchKernelEx(&launched.config, kernel, static_cast<Params>(std::forward<Args>(args))...), name);
}

// How many clusters of such CTAs fit on the current device at once.
template <class Kernel>
int max_clusters(Kernel* kernel, const LaunchShape& shape) {
  LaunchConfig launched(shape);
  launched.config.numAttrs = 2;  // it wants a cluster's size even of 1
  int count = 0;
  check_cuda(cudaOccupancyMaxActiveClusters(&count, kernel, &launched.config), "cudaOccupancyMaxActiveClusters");
  return count;
}

}  // namespace octet
