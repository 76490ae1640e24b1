// cuda.reduce_norm: octet/ops/reduce_norm.h for as many rows as go in small messages, one CTA a row. It sends its share
// of the row to the other ranks, takes theirs, adds all in rank order and goes on as cuda.rms_norm: the same bits as
// the parts', whose sum is rounded to BF16 too.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/peers.cuh"
#include "octet/kernels/cuda/rms_norm_row.cuh"

namespace octet {
namespace {

constexpr int kMaxVectors = 4;  // of a thread, whose registers hold them twice

struct Arguments {
  RmsNormArguments norm;
  const BF16* x;
  PeerMemory peers;
};

std::string declines(const ReduceNormOp& op, const Launch&) {
  const PeerMemory* peers = op.reduce.comm->peers();
  if (peers == nullptr) return "the ranks' memory is not on GPUs that reach each other's";
  if (op.norm.x.dtype != DType::kBF16 || op.norm.residual.dtype != DType::kBF16) return "takes x and residual in bf16";
  const RowShape shape = rms_norm_shape(op.norm);
  if (shape.vector != 8 || shape.vectors > kMaxVectors) {
    return fmt::format("takes rows of at most {} columns, aligned to 16 bytes", 8 * kMaxVectors * kRowThreads);
  }
  const int64_t most = std::min<int64_t>(PeerMemory::kMaxCtas, peers->max_small_bytes / (2 * op.norm.x.dim(1)));
  if (op.norm.x.dim(0) > most) return fmt::format("takes at most {} rows of {}", most, op.norm.x.dim(1));
  return declines_rms_norm(op.norm, shape);
}

// The sums of the thread's vectors over ranks, each as 8 BF16.
template <int kVectors>
__device__ inline void sum_over_ranks(const Arguments& a, int64_t row, uint32_t (&sums)[kVectors][4]) {
  const PeerMemory& m = a.peers;
  const uint32_t number = begin_collective(m);
  const int columns = a.norm.columns;
  const int64_t first = row * columns + column_of<8>(0);
  const int64_t stride = int64_t{8} * blockDim.x;  // elements from one vector of the thread to the next
  constexpr int64_t kLineBytesOfElement = 4;
  const auto has = [&](int i) { return column_of<8>(i) < columns; };
  uint32_t mine[kVectors][4] = {};
  const auto load_mine = [&] {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (!has(i)) continue;
      Words<16> words;
      words.load(a.x + first + i * stride);
#pragma unroll
      for (int k = 0; k < 4; ++k) mine[i][k] = words.word[k];
    }
  };
  load_mine();
  for (int step = 1; step < m.world_size; ++step) {
    const int peer = (m.rank + step) % m.world_size;
    std::byte* to = lines_of(m, peer, m.rank, number) + first * kLineBytesOfElement;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (has(i)) store_quad(to + i * stride * kLineBytesOfElement, mine[i], number);
    }
  }
  float2 total[kVectors][4] = {};
  for (int rank = 0; rank < m.world_size; ++rank) {
    uint32_t words[kVectors][4] = {};
    if (rank == m.rank) {
      if constexpr (kVectors > 2) load_mine();  // rather than hold it meanwhile
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) words[i][k] = mine[i][k];
      }
    } else {
      receive_quads(m, rank, lines_of(m, m.rank, rank, number) + first * kLineBytesOfElement,
                    stride * kLineBytesOfElement, number, has, words);
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 part = unpack_bf16(words[i][k]);
        total[i][k] = rank == 0 ? part : float2{total[i][k].x + part.x, total[i][k].y + part.y};
      }
    }
  }
  __syncthreads();  // all have begun
  end_collective(m, number);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[i][k] = pack_bf16(total[i][k]);
  }
}

template <RowKind kKind, int kVectors>
__global__ void __launch_bounds__(kRowThreads) reduce_norm(const __grid_constant__ Arguments a) {
  const int64_t row = blockIdx.x;
  uint32_t sums[kVectors][4];
  rms_norm_row<kKind, 8, kVectors>(a.norm, row, [&] {
    sum_over_ranks(a, row, sums);
    return [&](int i, int, float(&x)[8]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 two = unpack_bf16(sums[i][k]);
        x[2 * k] = two.x;
        x[2 * k + 1] = two.y;
      }
    };
  });
}

void run(const ReduceNormOp& op, const Launch& launch) {
  const int64_t num_rows = op.norm.residual.dim(0);
  if (num_rows == 0 || op.norm.residual.dim(1) == 0) return;
  const Arguments arguments{
      .norm = rms_norm_arguments(op.norm), .x = op.norm.x.data<BF16>(), .peers = *op.reduce.comm->peers()};
  const RowShape shape = rms_norm_shape(op.norm);
  const RowKind kind = rms_norm_kind(op.norm, shape, arguments.norm.out);
  dispatch_row(kind, shape, [&]<RowKind kKind, int kVector, int kVectors>() {
    if constexpr (kVector == 8 && kVectors <= kMaxVectors) {
      launch_kernel(
          "cuda.reduce_norm", launch,
          {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(static_cast<unsigned>(shape.threads))},
          reduce_norm<kKind, kVectors>, arguments);
    } else {
      fail(ErrorCode::kInternal, "cuda.reduce_norm: rows of {} vectors of {}", kVectors, kVector);
    }
  });
}

}  // namespace

Kernel<ReduceNormOp> cuda_reduce_norm() { return {.name = "cuda.reduce_norm", .declines = declines, .run = run}; }

}  // namespace octet
