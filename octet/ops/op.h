// Op: a struct of its arguments plus check(). Kernel: one way to compute it, with the reason why it declines. Backend:
// a device with its ordered kernels; calling it with an op checks the op and runs the first kernel that does not
// decline.
//
//   backend(RmsNormOp{.out = h, .x = x, .residual = r, .weight = w, .epsilon = 1e-5f});
#pragma once

#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "octet/base/read_ahead.h"
#include "octet/base/thread_pool.h"
#include "octet/device/buffer.h"
#include "octet/device/device.h"

namespace octet {

// What an op has to read of memory that no cache holds: weights, and K and V of every token in the cache.
struct OpReads {
  std::string shape;  // of the weight
  int64_t bytes = 0;
  int64_t bytes_per_cached_token = 0;
};

// Temporary memory of CPU kernels, one for each thread; grows to the largest request and stays.
class ThreadScratch {
 public:
  explicit ThreadScratch(int num_threads) : buffers_(static_cast<size_t>(num_threads) + 1) {}
  // At least num_bytes for this thread, aligned to 64 bytes, contents undefined; valid until the thread's next call.
  std::byte* get(int thread, int64_t num_bytes);
  // One buffer more, which the threads of an op share; valid until the next op asks for it.
  std::byte* shared(int64_t num_bytes) { return get(static_cast<int>(buffers_.size()) - 1, num_bytes); }

 private:
  std::vector<Buffer> buffers_;
};

// Device memory that GPU kernels share for what they leave between their CTAs: one op's use of it ends with the op.
// Fixed for a rank's life, since graphs freeze addresses. A kernel that needs more than there is declines.
struct Workspace {
  std::byte* data = nullptr;  // aligned to 256 bytes, contents undefined
  int64_t num_bytes = 0;
  // 0 before every op and after it; kNumCounters of them, or null: there are none.
  int32_t* counters = nullptr;
  static constexpr int64_t kNumCounters = 1024;
};
// A workspace in a buffer, its counters, which the buffer's end holds, set to 0 in the stream. Empty for no buffer.
Workspace make_workspace(const Buffer& buffer, Stream stream);

// Sees what is queued, for profiles; a backend without one asks nobody.
class LaunchObserver {
 public:
  virtual ~LaunchObserver() = default;
  // A row of this op comes.
  virtual void begins(std::string_view op, const OpReads& reads) = 0;
  // A GPU kernel is about to be queued; false leaves it out.
  virtual bool queues(std::string_view kernel) = 0;
};

// What a kernel runs with. GPU kernels are queued on the stream and return; they take part in programmatic dependent
// launch (octet/kernels/cuda/launch.cuh).
struct Launch {
  Stream stream;
  ThreadPool* threads = nullptr;     // CPU kernels
  ThreadScratch* scratch = nullptr;  // one buffer per member of `threads`
  ReadAhead* read_ahead = nullptr;   // CPU kernels, or null: of the members of `threads`
  CpuFeatures features;
  const GpuProperties* gpu = nullptr;  // GPU kernels
  Workspace workspace;                 // GPU kernels
  LaunchObserver* observer = nullptr;  // GPU kernels
};

// An op that is a sequence of ops, its parts(). Where no kernel takes it whole, they run one after the other: they are
// its specification.
template <class Op>
concept Fusion = requires(const Op& op) {
  op.parts();
};

template <class Op>
struct Kernel {
  std::string_view name;                              // "cpu.avx2.matmul_f8"
  std::string (*declines)(const Op&, const Launch&);  // why this kernel cannot run it; empty = it can
  void (*run)(const Op&, const Launch&);
};

// The ordered kernels of every op of Ops; the first that does not decline runs.
template <class... Ops>
struct BasicKernelTable {
  std::tuple<std::vector<Kernel<Ops>>...> kernels;

  template <class Op>
  std::vector<Kernel<Op>>& of() {
    return std::get<std::vector<Kernel<Op>>>(kernels);
  }
  template <class Op>
  const std::vector<Kernel<Op>>& of() const {
    return std::get<std::vector<Kernel<Op>>>(kernels);
  }
};

[[noreturn]] void no_kernel(std::string_view op_name,
                            const std::vector<std::pair<std::string_view, std::string>>& reasons);

}  // namespace octet
