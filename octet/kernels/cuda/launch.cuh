// How every GPU kernel of octet is launched: with programmatic dependent launch, so that a kernel's CTAs start while
// the kernel before it in the stream drains. The contract of each kernel, without which it would race:
//   - it calls wait_for_previous() before it reads or writes anything that another kernel writes or reads; only weights
//     and their scales, which no kernel of a step writes, may be touched before;
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

// Queues kernel(args...) on the launch's stream. `name` is the row's, for errors.
template <class... Params, class... Args>
void launch_kernel(std::string_view name, const Launch& launch, const LaunchShape& shape, void (*kernel)(Params...),
                   Args&&... args) {
  if (launch.observer != nullptr && !launch.observer->queues(name)) return;
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(launch.stream.handle);
  config.attrs = attributes;
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...), name);
}

}  // namespace octet
