// collectives_bench: the ops over ranks on GPUs of this host, as a decode step runs them: many in one recorded graph,
// replayed on all ranks at once. Prints one JSON object a line: {"op", "kernel", "world_size", "rows", "columns",
// "bytes", "us"}; us is rank 0's median time of one.
//
// Usage: collectives_bench [WORLD_SIZE]    (2)
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "bench/gpu/replay_time.h"
#include "octet/device/comm.h"
#include "octet/kernels/backends.h"

namespace octet {
namespace {

constexpr Device kFirst{.kind = DeviceKind::kCuda, .index = 0};
constexpr int64_t kHidden = 8192;

class Rank {
 public:
  explicit Rank(Comm& comm)
      : comm_(comm),
        device_{.kind = DeviceKind::kCuda, .index = comm.rank()},
        stream_(device_),
        launch_{.stream = stream_.get(), .gpu = &gpu_properties(device_)} {
    make_current(device_);
  }

  void run() {
    for (int64_t bytes = 1024; bytes <= 64 << 20; bytes *= 4) time_all_reduce(bytes);
    for (const int64_t bytes : {128 << 10, 512 << 10, 2 << 20}) time_all_reduce(bytes);
    for (const int64_t rows : {1, 8, 16, 32, 64, 128, 512}) {
      time_norm(rows, true);
      time_norm(rows, false);
    }
    for (const int64_t rows : {1, 32, 128}) time_gather(rows, 128256 / comm_.world_size());
  }

 private:
  Tensor make(DType dtype, Shape shape) {
    buffers_.emplace_back(device_, shape.num_elements() * dtype_bytes(dtype), "benchmark");
    fill_bytes(buffers_.back().data(), std::byte{0x31}, buffers_.back().num_bytes(), launch_.stream);
    return buffers_.back().tensor(dtype, shape);
  }
  void free_all() {
    synchronize(launch_.stream);
    comm_.barrier();
    buffers_.clear();
    comm_.barrier();
  }

  void report(std::string_view op, std::string_view kernel, ConstTensor x, int count,
              const std::function<void()>& work) {
    synchronize(launch_.stream);
    comm_.barrier();
    work();
    synchronize(launch_.stream);
    comm_.barrier();
    const double us = replay_time(launch_.stream, count, [&] {
      for (int i = 0; i < count; ++i) work();
    });
    comm_.check_kernels();
    if (comm_.rank() != 0) return;
    fmt::print(
        "{{\"op\": \"{}\", \"kernel\": \"{}\", \"world_size\": {}, \"rows\": {}, \"columns\": {}, \"bytes\": {}, "
        "\"us\": {:.3f}}}\n",
        op, kernel, comm_.world_size(), x.dim(0), x.dim(1), x.num_bytes(), us);
    std::fflush(stdout);
  }

  void time_all_reduce(int64_t bytes) {
    const Tensor x = make(DType::kBF16, {bytes / 1024, 512});
    const AllReduceOp op{.x = x, .comm = &comm_};
    for (const Kernel<AllReduceOp>& kernel : kernel_table(device_).of<AllReduceOp>()) {
      if (!kernel.declines(op, launch_).empty()) continue;
      report("all_reduce", kernel.name, x, bytes > 1 << 20 ? 20 : 100, [&] { kernel.run(op, launch_); });
    }
    free_all();
  }

  // In one kernel, or as parts: to FP8 with a scale per token, as a 70B model's decode steps do.
  void time_norm(int64_t rows, bool whole) {
    const Tensor x = make(DType::kBF16, {rows, kHidden}), residual = make(DType::kBF16, {rows, kHidden});
    const QuantTensor out(make(DType::kF8E4M3, {rows, kHidden}), make(DType::kF32, {rows}), kF8DynamicToken);
    const RmsNormOp norm{.out = out, .x = x, .residual = residual, .weight = make(DType::kF32, {kHidden})};
    const AllReduceOp reduce{.x = x, .comm = &comm_};
    const Backend backend(kernel_table(device_), launch_, DType::kBF16);
    const ReduceNormOp op{.reduce = reduce, .norm = norm};
    if (!whole) {
      report("reduce_norm", backend.choose(reduce).chosen.data() + std::string(" + cuda.rms_norm"), x, 100, [&] {
        backend(reduce);
        backend(norm);
      });
    } else if (const auto chosen = backend.choose(op).chosen; !chosen.empty()) {
      report("reduce_norm", chosen, x, 100, [&] { backend(op); });
    }
    free_all();
  }

  void time_gather(int64_t rows, int64_t columns) {
    const Tensor part = make(DType::kF32, {rows, columns});
    const Tensor out = make(DType::kF32, {rows, columns * comm_.world_size()});
    const Backend backend(kernel_table(device_), launch_, DType::kBF16);
    report("all_gather", "cuda.all_gather", part, 20,
           [&] { backend(AllGatherOp{.out = out, .part = part, .comm = &comm_}); });
    free_all();
  }

  Comm& comm_;
  Device device_;
  StreamOwner stream_;
  Launch launch_;
  std::vector<Buffer> buffers_;
};

int run(int world_size) {
  auto comms = make_gpu_comms(gpus_of_ranks(kFirst, world_size), 20.0);
  std::vector<std::string> faults(comms.size());
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    threads.emplace_back([&] {
      try {
        Rank(*comm).run();
      } catch (const std::exception& error) {
        faults[static_cast<size_t>(comm->rank())] = error.what();
        comm->abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  int status = 0;
  for (const std::string& fault : faults) {
    if (fault.empty()) continue;
    fmt::print(stderr, "collectives_bench: {}\n", fault);
    status = 1;
  }
  return status;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  try {
    return octet::run(argc > 1 ? std::atoi(argv[1]) : 2);
  } catch (const std::exception& error) {
    fmt::print(stderr, "collectives_bench: {}\n", error.what());
    return 1;
  }
}
