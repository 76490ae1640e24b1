#include <cuda_runtime.h>

#include "octet/base/error.h"
#include "octet/device/cuda_runtime.h"

namespace octet::cuda {
namespace {

constexpr int kHopper = 90;

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  fail(ErrorCode::kInternal, "{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}

// Makes a device current for a call and leaves the thread's own current again.
class Current {
 public:
  explicit Current(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~Current() { cudaSetDevice(before_); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
};

struct Found {
  int num_devices = 0;
  std::string why_none;
};

Found find_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();  // a machine without a GPU is no error of later calls
    return {0, status == cudaSuccess ? "there is no GPU" : fmt::format("no GPU: {}", cudaGetErrorString(status))};
  }
  for (int device = 0; device < count; ++device) {
    const GpuProperties found = properties(device);
    // Kernels of the "a" targets run on their own generation only.
    if (found.compute_capability != kHopper) {
      return {0, fmt::format("GPU {} is a {} of compute capability {}.{}; octet has kernels for 9.0 (H100, H200)",
                             device, found.name, found.compute_capability / 10, found.compute_capability % 10)};
    }
  }
  return {count, ""};
}

const Found& found() {
  static const Found result = find_devices();
  return result;
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t as_event(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

int num_devices() { return found().num_devices; }
std::string why_none() { return found().why_none; }

GpuProperties properties(int device) {
  cudaDeviceProp asked{};
  check(cudaGetDeviceProperties(&asked, device), "cudaGetDeviceProperties");
  int kilohertz = 0;
  int bits = 0;
  check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, device), "cudaDeviceGetAttribute");
  return {.name = asked.name,
          .compute_capability = 10 * asked.major + asked.minor,
          .num_sms = asked.multiProcessorCount,
          .l2_bytes = asked.l2CacheSize,
          .max_shared_bytes = static_cast<int64_t>(asked.sharedMemPerBlockOptin),
          .total_bytes = static_cast<int64_t>(asked.totalGlobalMem),
          .peak_bytes_per_second = int64_t{2} * kilohertz * 1000 * bits / 8};
}

int64_t available_bytes(int device) {
  const Current current(device);
  size_t available = 0;
  size_t total = 0;
  check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(available);
}

void make_current(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }

bool can_access_peer(int device, int peer) {
  int can = 0;
  check(cudaDeviceCanAccessPeer(&can, device, peer), "cudaDeviceCanAccessPeer");
  return can != 0;
}

void enable_peer_access(int device, int peer) {
  const Current current(device);
  const cudaError_t status = cudaDeviceEnablePeerAccess(peer, 0);
  if (status == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return;
  }
  check(status, "cudaDeviceEnablePeerAccess");
}

std::byte* allocate(int device, int64_t num_bytes) {
  const Current current(device);
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(num_bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMalloc");
  return static_cast<std::byte*>(data);
}

// The release functions serve destructors: after a fault every call fails, and the fault has been reported.
void release(std::byte* data) noexcept { cudaFree(data); }

std::byte* allocate_pinned(int64_t num_bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, static_cast<size_t>(num_bytes), cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaHostAlloc");
  return static_cast<std::byte*>(data);
}

void release_pinned(std::byte* data) noexcept { cudaFreeHost(data); }

void copy(void* to, const void* from, int64_t num_bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(num_bytes), cudaMemcpyDefault, as_stream(stream)),
        "cudaMemcpyAsync");
}

void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t row_bytes, int64_t num_rows,
               void* stream) {
  check(cudaMemcpy2DAsync(to, static_cast<size_t>(to_stride), from, static_cast<size_t>(from_stride),
                          static_cast<size_t>(row_bytes), static_cast<size_t>(num_rows), cudaMemcpyDefault,
                          as_stream(stream)),
        "cudaMemcpy2DAsync");
}

void fill(void* to, std::byte value, int64_t num_bytes, void* stream) {
  check(cudaMemsetAsync(to, static_cast<int>(value), static_cast<size_t>(num_bytes), as_stream(stream)),
        "cudaMemsetAsync");
}

void* make_stream(int device) {
  const Current current(device);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

void release_stream(void* stream) noexcept { cudaStreamDestroy(as_stream(stream)); }

void synchronize(void* stream) { check(cudaStreamSynchronize(as_stream(stream)), "cudaStreamSynchronize"); }

void* make_event(int device) {
  const Current current(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "cudaEventCreate");
  return event;
}

void release_event(void* event) noexcept { cudaEventDestroy(as_event(event)); }

void record(void* event, void* stream) {
  check(cudaEventRecord(as_event(event), as_stream(stream)), "cudaEventRecord");
}

void wait_on_host(void* event) { check(cudaEventSynchronize(as_event(event)), "cudaEventSynchronize"); }

void wait_on_stream(void* event, void* stream) {
  check(cudaStreamWaitEvent(as_stream(stream), as_event(event), 0), "cudaStreamWaitEvent");
}

bool is_done(void* event) {
  const cudaError_t status = cudaEventQuery(as_event(event));
  if (status == cudaErrorNotReady) return false;
  check(status, "cudaEventQuery");
  return true;
}

double milliseconds_between(void* start, void* stop) {
  float milliseconds = 0.0f;
  check(cudaEventElapsedTime(&milliseconds, as_event(start), as_event(stop)), "cudaEventElapsedTime");
  return milliseconds;
}

void begin_capture(void* stream) {
  check(cudaStreamBeginCapture(as_stream(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

void* end_capture(void* stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(as_stream(stream), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t ready = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&ready, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  // Now, not at the first replay: what it may allocate could wait for kernels that wait for those of another rank.
  check(cudaGraphUpload(ready, as_stream(stream)), "cudaGraphUpload");
  return ready;
}

void cancel_capture(void* stream) noexcept {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(as_stream(stream), &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void replay(void* graph, void* stream) {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), as_stream(stream)), "cudaGraphLaunch");
}

void release_graph(void* graph) noexcept { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

}  // namespace octet::cuda
