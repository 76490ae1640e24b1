// octet/ops/all_reduce.h, in two ways that give the same bits:
//   cuda.all_reduce_lines   small messages: every rank sends its share to all others and adds what it receives; one
//                           trip between GPUs
//   cuda.all_reduce_slices  any size: rank r reads the r-th slices of all ranks, adds them and writes the sum to all;
//                           half the bytes of the other way per rank and less with more ranks, and two meetings
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/kernels/cuda/peers.cuh"

namespace octet {
namespace {

constexpr int kQuadBytes = 16;
constexpr int kLineThreads = 256;
constexpr int kSliceThreads = 512;

struct Arguments {
  std::byte* x;
  int64_t num_quads;
  PeerMemory peers;
};

std::string declines_any(const AllReduceOp& op, const Launch&) {
  if (op.comm->peers() == nullptr) return "the ranks' memory is not on GPUs that reach each other's";
  if (op.x.num_bytes() % kQuadBytes != 0 || reinterpret_cast<uintptr_t>(op.x.bytes) % kQuadBytes != 0)
    return fmt::format("takes multiples of {} bytes, aligned to as many", kQuadBytes);
  return "";
}

std::string declines_lines(const AllReduceOp& op, const Launch& launch) {
  std::string reason = declines_any(op, launch);
  if (!reason.empty()) return reason;
  const int64_t most =
      std::min<int64_t>(op.comm->peers()->max_small_bytes, int64_t{PeerMemory::kMaxCtas} * kLineThreads * kQuadBytes);
  return op.x.num_bytes() <= most ? "" : fmt::format("takes at most {} bytes", most);
}

// 16 bytes of T as F32, and back.
template <class T>
struct Sum {
  static constexpr int kCount = kQuadBytes / static_cast<int>(sizeof(T));
  float values[kCount];

  __device__ void add(const uint32_t (&words)[4], bool is_first) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float value = element(words, k);
      values[k] = is_first ? value : values[k] + value;
    }
  }
  __device__ void store(uint32_t (&words)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (sizeof(T) == 4) {
        words[k] = __float_as_uint(values[k]);
      } else {
        words[k] = pack_bf16({values[2 * k], values[2 * k + 1]});
      }
    }
  }

 private:
  __device__ static float element(const uint32_t (&words)[4], int k) {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[k]);
    const float2 two = unpack_bf16(words[k / 2]);
    return k % 2 == 0 ? two.x : two.y;
  }
};

__device__ inline void load_quad(const std::byte* from, uint32_t (&words)[4]) {
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"  // another GPU's, that no cache of this one may hold
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(from));
}
__device__ inline void store_quad_at(std::byte* to, const uint32_t (&words)[4]) {
  *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

template <class T>
__global__ void __launch_bounds__(kLineThreads) all_reduce_lines(const __grid_constant__ Arguments a) {
  const PeerMemory& m = a.peers;
  const int64_t i = int64_t{blockIdx.x} * kLineThreads + threadIdx.x;
  const bool has_one = i < a.num_quads;
  const auto has = [&](int) { return has_one; };
  start_next();
  wait_for_previous();
  const uint32_t number = begin_collective(m);
  uint32_t mine[4] = {};
  if (has_one) load_quad(a.x + i * kQuadBytes, mine);
  for (int step = 1; step < m.world_size && has_one; ++step) {
    const int peer = (m.rank + step) % m.world_size;
    store_quad(lines_of(m, peer, m.rank, number) + i * 2 * kQuadBytes, mine, number);
  }
  Sum<T> sum;
  for (int rank = 0; rank < m.world_size; ++rank) {
    uint32_t words[1][4] = {{mine[0], mine[1], mine[2], mine[3]}};
    if (rank != m.rank)
      receive_quads(m, rank, lines_of(m, m.rank, rank, number) + i * 2 * kQuadBytes, 0, number, has, words);
    sum.add(words[0], rank == 0);
  }
  if (has_one) {
    uint32_t words[4];
    sum.store(words);
    store_quad_at(a.x + i * kQuadBytes, words);
  }
  __syncthreads();  // all have begun
  end_collective(m, number);
}

// kWorld: the number of ranks as a constant, or 0: m.world_size. kUnroll quads at once.
template <class T, int kWorld, int kUnroll>
__global__ void __launch_bounds__(kSliceThreads) all_reduce_slices(const __grid_constant__ Arguments a) {
  __shared__ std::byte* of_rank[PeerMemory::kMaxRanks];
  const PeerMemory& m = a.peers;
  const int world_size = kWorld > 0 ? kWorld : m.world_size;
  start_next();
  wait_for_previous();
  const uint32_t number = begin_collective(m);
  exchange_addresses(m, number, a.x, of_rank);
  const int64_t per_rank = (a.num_quads + world_size - 1) / world_size;
  const int64_t end = min(a.num_quads, (m.rank + 1) * per_rank);
  bool all_came = true;
  for (int rank = 0; rank < world_size; ++rank) all_came &= of_rank[rank] != nullptr;
  const int64_t stride = int64_t{gridDim.x} * kSliceThreads;
  for (int64_t i = m.rank * per_rank + int64_t{blockIdx.x} * kSliceThreads + threadIdx.x; i < end && all_came;
       i += kUnroll * stride) {
    Sum<T> sums[kUnroll];
#pragma unroll
    for (int rank = 0; rank < world_size; ++rank) {
      uint32_t words[kUnroll][4] = {};
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u * stride < end) load_quad(of_rank[rank] + (i + u * stride) * kQuadBytes, words[u]);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) sums[u].add(words[u], rank == 0);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u * stride >= end) continue;
      uint32_t words[4];
      sums[u].store(words);
#pragma unroll
      for (int rank = 0; rank < world_size; ++rank) store_quad_at(of_rank[rank] + (i + u * stride) * kQuadBytes, words);
    }
  }
  part(m, number);
  end_collective(m, number);
}

Arguments arguments_of(const AllReduceOp& op) {
  return {.x = op.x.bytes, .num_quads = op.x.num_bytes() / kQuadBytes, .peers = *op.comm->peers()};
}

void run_lines(const AllReduceOp& op, const Launch& launch) {
  const Arguments arguments = arguments_of(op);
  if (arguments.num_quads == 0) return;
  const auto ctas = static_cast<unsigned>((arguments.num_quads + kLineThreads - 1) / kLineThreads);
  launch_kernel("cuda.all_reduce_lines", launch, {.grid = dim3(ctas), .block = dim3(kLineThreads)},
                op.x.dtype == DType::kBF16 ? all_reduce_lines<BF16> : all_reduce_lines<float>, arguments);
}

template <class T>
auto slices_kernel(int world_size) {
  return world_size == 2   ? all_reduce_slices<T, 2, 4>
         : world_size == 4 ? all_reduce_slices<T, 4, 2>
         : world_size == 8 ? all_reduce_slices<T, 8, 1>
                           : all_reduce_slices<T, 0, 1>;
}

void run_slices(const AllReduceOp& op, const Launch& launch) {
  const Arguments arguments = arguments_of(op);
  if (arguments.num_quads == 0) return;
  const int world_size = arguments.peers.world_size;
  const int64_t per_rank = (arguments.num_quads + world_size - 1) / world_size;
  const int64_t ctas = std::clamp<int64_t>(per_rank / kSliceThreads, 1, launch.gpu->num_sms);
  launch_kernel(
      "cuda.all_reduce_slices", launch, {.grid = dim3(static_cast<unsigned>(ctas)), .block = dim3(kSliceThreads)},
      op.x.dtype == DType::kBF16 ? slices_kernel<BF16>(world_size) : slices_kernel<float>(world_size), arguments);
}

}  // namespace

Kernel<AllReduceOp> cuda_all_reduce_lines() {
  return {.name = "cuda.all_reduce_lines", .declines = declines_lines, .run = run_lines};
}
Kernel<AllReduceOp> cuda_all_reduce_slices() {
  return {.name = "cuda.all_reduce_slices", .declines = declines_any, .run = run_slices};
}

}  // namespace octet
