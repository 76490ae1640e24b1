// hopper.head_matmul: octet/ops/head_matmul.h in BF16 on tensor cores. A CTA makes columns of one head for 16 tokens (a
// decode step, bound by the weights' bytes) or 64 (a prompt), 64 columns after the other: as many as leave work for all
// processors. Chunks of 64 steps of the sum come through a ring of copies, in ascending order whatever the number of
// tokens: so a row's bits do not depend on it. Weights are fetched before the kernel in front has ended.
//
// In shared memory a chunk of a row is 128 bytes; its 16-byte piece i of row r lies at i ^ (r % 8).
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/warp_mma.cuh"

namespace octet {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 64;
constexpr int kChunk = 64;  // steps of the sum
constexpr int kChunkPieces = 8;
constexpr int kStages = 4;
constexpr int kCtasPerSm = 3;

struct Arguments {
  BF16* out;
  const BF16* x;
  const BF16* weight;
  int64_t out_stride, x_stride;
  int out_step, out_first, x_step, x_first, tokens, n, k;
  int column_tiles;  // of a CTA
};

template <int kTokens>
struct SharedMemory {
  alignas(128) std::byte x[kStages][kTokens * 128];
  alignas(128) std::byte weight[kStages][kColumns * 128];
  alignas(128) std::byte out[kThreads / 32][16 * 128];
};

__device__ uint32_t place(int row, int piece) { return static_cast<uint32_t>(row * 128 + (piece ^ row % 8) * 16); }

template <int kTokens>
class HeadTile {
 public:
  // Of a warp: 16 tokens, and all columns or a quarter of them.
  static constexpr int kWarpColumns = kTokens == 64 ? kColumns : kColumns / 4;

  __device__ HeadTile(const Arguments& a, SharedMemory<kTokens>& shared)
      : a_(a),
        shared_(shared),
        first_token_(static_cast<int>(blockIdx.z) * kTokens),
        first_column_(static_cast<int>(blockIdx.x) * a.column_tiles * kColumns),
        chunks_(a.k / kChunk),
        head_(static_cast<int>(blockIdx.y)),
        warp_tokens_(kTokens == 64 ? static_cast<int>(threadIdx.x) / 32 * 16 : 0),
        warp_columns_(kTokens == 64 ? 0 : static_cast<int>(threadIdx.x) / 32 * kWarpColumns) {}

  __device__ void run() {
    const int steps = chunks_ * a_.column_tiles;
    for (int s = 0; s < min(kStages - 1, steps); ++s) fetch_weight(s);
    wait_for_previous();
    start_next();
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) fetch_x(s);
      commit_copies();
    }
    for (int tile = 0, s = 0; tile < a_.column_tiles; ++tile) {
      float sums[kWarpColumns / 8][4] = {};
      for (int c = 0; c < chunks_; ++c, ++s) {
        wait_for_copies<kStages - 2>();
        __syncthreads();  // the step is here for all, and its predecessor's place is free
        if (s + kStages - 1 < steps) {
          fetch_weight(s + kStages - 1);
          fetch_x(s + kStages - 1);
        }
        commit_copies();
        multiply(s % kStages, sums);
      }
      write(first_column_ + tile * kColumns, sums);
    }
  }

 private:
  // Step s: a chunk of some columns' sums.
  __device__ void fetch_weight(int s) const {
    const uint32_t to = shared_address(shared_.weight[s % kStages]);
    const int column = first_column_ + s / chunks_ * kColumns;
    const BF16* from = a_.weight + (int64_t{head_} * a_.n + column) * a_.k + s % chunks_ * kChunk;
#pragma unroll
    for (int i = 0; i < kColumns * kChunkPieces / kThreads; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads, row = at / kChunkPieces, piece = at % kChunkPieces;
      copy_async_16(to + place(row, piece), from + int64_t{row} * a_.k + piece * 8);
    }
  }

  __device__ void fetch_x(int s) const {
    const uint32_t to = shared_address(shared_.x[s % kStages]);
    const BF16* from = a_.x + int64_t{head_} * a_.x_step + a_.x_first + s % chunks_ * kChunk;
#pragma unroll
    for (int i = 0; i < kTokens * kChunkPieces / kThreads; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads, row = at / kChunkPieces, piece = at % kChunkPieces;
      const bool exists = first_token_ + row < a_.tokens;
      const int64_t t = exists ? first_token_ + row : 0;
      copy_async_16_or_zeros(to + place(row, piece), from + t * a_.x_stride + piece * 8, exists);
    }
  }

  __device__ void multiply(int stage, float (&sums)[kWarpColumns / 8][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t x = shared_address(shared_.x[stage]);
    const uint32_t weight = shared_address(shared_.weight[stage]);
#pragma unroll
    for (int step = 0; step < kChunk / 16; ++step) {
      uint32_t of_tokens[4];
      load_matrices(of_tokens, x + place(warp_tokens_ + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (int j = 0; j < kWarpColumns / 16; ++j) {
        uint32_t of_columns[4];
        const int row = warp_columns_ + j * 16 + lane / 16 * 8 + lane % 8;
        load_matrices(of_columns, weight + place(row, 2 * step + lane / 8 % 2));
        mma_16x8x16<true>(sums[2 * j], of_tokens, {of_columns[0], of_columns[1]});
        mma_16x8x16<true>(sums[2 * j + 1], of_tokens, {of_columns[2], of_columns[3]});
      }
    }
  }

  // Through shared memory, so that a row's columns leave in pieces of 16 bytes.
  __device__ void write(int first_column, const float (&sums)[kWarpColumns / 8][4]) const {
    constexpr int kPieces = kWarpColumns / 8;  // of a row of the warp
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t staged = shared_address(shared_.out[threadIdx.x / 32]);
    __syncwarp();  // what was staged before has left
#pragma unroll
    for (int j = 0; j < kPieces; j += 2) {
      const uint32_t matrices[4] = {pack_bf16({sums[j][0], sums[j][1]}), pack_bf16({sums[j][2], sums[j][3]}),
                                    pack_bf16({sums[j + 1][0], sums[j + 1][1]}),
                                    pack_bf16({sums[j + 1][2], sums[j + 1][3]})};
      store_matrices(staged + place(lane % 16, j + lane / 16), matrices);
    }
    __syncwarp();
    BF16* out = a_.out + int64_t{head_} * a_.out_step + a_.out_first + first_column + warp_columns_;
#pragma unroll
    for (int i = 0; i < 16 * kPieces / 32; ++i) {
      const int at = lane + 32 * i, row = at / kPieces, piece = at % kPieces;
      const int64_t t = first_token_ + warp_tokens_ + row;
      if (t < a_.tokens)
        *reinterpret_cast<uint4*>(out + t * a_.out_stride + piece * 8) = load_shared_16(staged + place(row, piece));
    }
  }

  const Arguments& a_;
  SharedMemory<kTokens>& shared_;
  int first_token_, first_column_, chunks_, head_;
  int warp_tokens_, warp_columns_;  // of the tile, where the warp's begin
};

template <int kTokens>
__global__ void __launch_bounds__(kThreads, kCtasPerSm) head_matmul(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  HeadTile<kTokens>(a, *reinterpret_cast<SharedMemory<kTokens>*>(shared_bytes)).run();
}

std::string declines(const HeadMatmulOp& op, const Launch&) {
  for (const ConstTensor& tensor : {ConstTensor(op.out), op.x, op.weight}) {
    if (tensor.dtype != DType::kBF16) return fmt::format("takes bf16 alone, not {}", dtype_name(tensor.dtype));
  }
  if (op.weight.dim(1) % kColumns != 0 || op.weight.dim(2) % kChunk != 0) {
    return fmt::format("takes weights of multiples of 64 rows and columns, not {}", op.weight.shape.to_string());
  }
  const auto in_pieces = [](const ConstTensor& x, int64_t step, int64_t first) {
    return x.row_stride % 8 == 0 && step % 8 == 0 && first % 8 == 0 && reinterpret_cast<uintptr_t>(x.bytes) % 16 == 0;
  };
  return in_pieces(op.x, op.x_step, op.x_first) && in_pieces(op.out, op.out_step, op.out_first) &&
                 in_pieces(op.weight, 0, 0)
             ? ""
             : "takes heads of x and out and weights that are aligned to 16 bytes";
}

template <int kTokens>
void launch_tiles(Arguments arguments, int64_t heads, const Launch& launch) {
  const int64_t token_tiles = (arguments.tokens + kTokens - 1) / kTokens;
  int64_t parts = arguments.n / kColumns;  // of a head's columns, which as many CTAs make
  while (parts % 2 == 0 && parts / 2 * heads * token_tiles >= int64_t{kCtasPerSm} * launch.gpu->num_sms) parts /= 2;
  arguments.column_tiles = static_cast<int>(arguments.n / kColumns / parts);
  allow_shared_bytes(head_matmul<kTokens>, sizeof(SharedMemory<kTokens>));
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(parts), static_cast<unsigned>(heads), static_cast<unsigned>(token_tiles)),
      .block = dim3(kThreads),
      .shared_bytes = sizeof(SharedMemory<kTokens>)};
  launch_kernel("hopper.head_matmul", launch, shape, head_matmul<kTokens>, arguments);
}

void run(const HeadMatmulOp& op, const Launch& launch) {
  const Arguments arguments{.out = op.out.data<BF16>(),
                            .x = op.x.data<BF16>(),
                            .weight = op.weight.data<BF16>(),
                            .out_stride = op.out.row_stride,
                            .x_stride = op.x.row_stride,
                            .out_step = static_cast<int>(op.out_step),
                            .out_first = static_cast<int>(op.out_first),
                            .x_step = static_cast<int>(op.x_step),
                            .x_first = static_cast<int>(op.x_first),
                            .tokens = static_cast<int>(op.x.dim(0)),
                            .n = static_cast<int>(op.weight.dim(1)),
                            .k = static_cast<int>(op.weight.dim(2))};
  if (arguments.tokens == 0 || op.num_heads() == 0) return;
  arguments.tokens <= 16 ? launch_tiles<16>(arguments, op.num_heads(), launch)
                         : launch_tiles<64>(arguments, op.num_heads(), launch);
}

}  // namespace

Kernel<HeadMatmulOp> hopper_head_matmul() { return {.name = "hopper.head_matmul", .declines = declines, .run = run}; }

}  // namespace octet
