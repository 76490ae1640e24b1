// cuda.all_gather: octet/ops/all_gather.h. Every rank writes its columns to the outputs of all.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/peers.cuh"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

constexpr int kThreads = 512;

struct Arguments {
  float* out;
  const float* part;
  int64_t num_rows;
  int64_t columns;  // of a part
  PeerMemory peers;
};

std::string declines(const AllGatherOp& op, const Launch&) {
  return op.comm->peers() == nullptr ? "the ranks' memory is not on GPUs that reach each other's" : "";
}

template <int kVector>
__global__ void __launch_bounds__(kThreads) all_gather(const __grid_constant__ Arguments a) {
  __shared__ std::byte* of_rank[PeerMemory::kMaxRanks];
  const PeerMemory& m = a.peers;
  start_next();
  wait_for_previous();
  const uint32_t number = begin_collective(m);
  exchange_addresses(m, number, reinterpret_cast<std::byte*>(a.out), of_rank);
  const int64_t per_row = a.columns / kVector;
  const int64_t count = a.num_rows * per_row;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / per_row, column = i % per_row * kVector;
    float values[kVector];
    load_f32(a.part + row * a.columns + column, values);
    const int64_t at = (row * m.world_size + m.rank) * a.columns + column;
    for (int step = 0; step < m.world_size; ++step) {
      std::byte* out = of_rank[(m.rank + step) % m.world_size];
      if (out != nullptr) store_f32(reinterpret_cast<float*>(out) + at, values);
    }
  }
  part(m, number);
  end_collective(m, number);
}

void run(const AllGatherOp& op, const Launch& launch) {
  const Arguments arguments{.out = op.out.data<float>(),
                            .part = op.part.data<float>(),
                            .num_rows = op.part.dim(0),
                            .columns = op.part.dim(1),
                            .peers = *op.comm->peers()};
  if (arguments.num_rows == 0 || arguments.columns == 0) return;
  const bool aligned = arguments.columns % 4 == 0 && reinterpret_cast<uintptr_t>(op.part.bytes) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(op.out.bytes) % 16 == 0;
  const int64_t count = arguments.num_rows * arguments.columns / (aligned ? 4 : 1);
  const int64_t ctas = std::clamp<int64_t>(count / kThreads, 1, launch.gpu->num_sms);
  launch_kernel("cuda.all_gather", launch, {.grid = dim3(static_cast<unsigned>(ctas)), .block = dim3(kThreads)},
                aligned ? all_gather<4> : all_gather<1>, arguments);
}

}  // namespace

Kernel<AllGatherOp> cuda_all_gather() { return {.name = "cuda.all_gather", .declines = declines, .run = run}; }

}  // namespace octet
