// cuda.move_ints: octet/ops/move_ints.h, by one CTA. It waits for all kernels before it and all behind it wait for it:
// between steps it brings what a step's kernels may read before those in front of them have ended.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"

namespace octet {
namespace {

constexpr int kThreads = 1024;
constexpr int kAhead = 4;  // loads of a thread under way: host memory is a microsecond away

struct Move {
  int32_t* to;
  const int32_t* from;
  const int32_t* to_index;
  const int32_t* from_index;
  int count;
};
struct Arguments {
  Move moves[std::tuple_size_v<decltype(MoveIntsOp::moves)>];
};

std::string declines(const MoveIntsOp&, const Launch&) { return ""; }

template <class Word>
__device__ void copy(Word* to, const Word* from, int begin, int count) {
  for (int first = begin + static_cast<int>(threadIdx.x); first < count; first += kAhead * kThreads) {
    Word words[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * kThreads < count) words[j] = from[first + j * kThreads];
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * kThreads < count) to[first + j * kThreads] = words[j];
    }
  }
}

__device__ void copy(const Move& move) {
  const bool aligned = (reinterpret_cast<uintptr_t>(move.to) | reinterpret_cast<uintptr_t>(move.from)) % 16 == 0;
  const int fours = aligned ? move.count / 4 : 0;
  copy(reinterpret_cast<int4*>(move.to), reinterpret_cast<const int4*>(move.from), 0, fours);
  copy(move.to, move.from, 4 * fours, move.count);
}

__global__ void __launch_bounds__(kThreads) move_ints(const __grid_constant__ Arguments a) {
#pragma unroll
  for (const Move& move : a.moves) {
    if (move.count == 0) continue;
    if (move.to_index == nullptr && move.from_index == nullptr) {
      copy(move);
    } else {
#pragma unroll 4
      for (int i = static_cast<int>(threadIdx.x); i < move.count; i += kThreads) {
        const int from = move.from_index != nullptr ? move.from_index[i] : i;
        move.to[move.to_index != nullptr ? move.to_index[i] : i] = move.from[from];
      }
    }
    __syncthreads();
  }
}

void run(const MoveIntsOp& op, const Launch& launch) {
  Arguments arguments{};
  const auto data = [](const ConstTensor& t) { return t ? t.data<int32_t>() : nullptr; };
  for (size_t i = 0; i < op.moves.size(); ++i) {
    const IntMove& move = op.moves[i];
    if (!move.to) continue;
    arguments.moves[i] = {.to = move.to.data<int32_t>(),
                          .from = data(move.from),
                          .to_index = data(move.to_index),
                          .from_index = data(move.from_index),
                          .count = static_cast<int>(move.count())};
  }
  const LaunchShape shape{.grid = dim3(1), .block = dim3(kThreads), .overlaps = false};
  launch_kernel("cuda.move_ints", launch, shape, move_ints, arguments);
}

}  // namespace

Kernel<MoveIntsOp> cuda_move_ints() { return {.name = "cuda.move_ints", .declines = declines, .run = run}; }

}  // namespace octet
