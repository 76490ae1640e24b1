// The tiles of the grouped matmul of a mixture's experts: a stack of matrices, each for rows of x of its own, whose
// number is known on the device only. Every CTA lists the experts that have rows in its shared memory and finds its
// tiles there: those of one expert after those of another, of one expert those of equal weight rows side by side.
#pragma once

#include "octet/kernels/cuda/expert_rows.cuh"
#include "octet/kernels/hopper/matmul_operands.cuh"
#include "octet/ops/expert_matmul.h"

namespace octet {

// Rows [channel, ...) of a matrix of a stack, for rows [row, row + num_rows) of x and of out.
struct MatrixTile {
  int matrix, channel;
  int row, num_rows;
};

// An expert that has rows. One more ends the list: the first row and tile of none.
struct ListedExpert {
  int matrix, row, first_tile;
};

// In shared memory.
struct ExpertList {
  int* count;
  ListedExpert* experts;

  __device__ explicit ExpertList(std::byte* memory)
      : count(reinterpret_cast<int*>(memory)), experts(reinterpret_cast<ListedExpert*>(memory) + 1) {}
  __device__ int num_tiles() const { return experts[*count].first_tile; }

  // One warp. Tiles: as many as `tile_tokens` rows of x each make, times matrix_tiles.
  __device__ void fill(const ExpertRows& rows, int tile_tokens, int matrix_tiles) const {
    constexpr unsigned kAll = 0xffffffffu;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    constexpr int kAtOnce = 4;  // loads under way
    int listed = 0;
    int tiles = 0;
    for (int first = 0; first < rows.num_experts; first += 32 * kAtOnce) {
      int begin[kAtOnce];
      int end[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int e = min(first + 32 * i + lane, rows.num_experts);
        begin[i] = __ldcg(rows.offsets + e);
        end[i] = __ldcg(rows.offsets + min(e + 1, rows.num_experts));
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int num_rows = end[i] - begin[i];
        const int own = (num_rows + tile_tokens - 1) / tile_tokens * matrix_tiles;
        int up_to = own;
        for (int step = 1; step < 32; step *= 2) {
          const int earlier = __shfl_up_sync(kAll, up_to, step);
          if (lane >= step) up_to += earlier;
        }
        const unsigned hit = __ballot_sync(kAll, num_rows > 0);
        if (num_rows > 0) {
          experts[listed + __popc(hit & ((1u << lane) - 1))] = {first + 32 * i + lane, begin[i], tiles + up_to - own};
        }
        listed += __popc(hit);
        tiles += __shfl_sync(kAll, up_to, 31);
      }
    }
    if (lane == 0) {
      experts[listed] = {-1, __ldcg(rows.offsets + rows.num_experts), tiles};
      *count = listed;
    }
  }
};
inline int64_t expert_list_bytes(const ExpertMatmulOp& op) {
  const int64_t listed = std::min(op.plan.num_experts(), op.plan.order.dim(0));
  return (listed + 2) * static_cast<int64_t>(sizeof(ListedExpert));
}

// Walks through tiles of a list, in rising order.
struct ExpertTileCursor {
  const ListedExpert* expert;

  __device__ ExpertTileCursor(const ExpertList& list, int first_tile) : expert(list.experts) {
    for (int count = *list.count; count > 1;) {
      const int half = count / 2;
      if (expert[half].first_tile <= first_tile) {
        expert += half;
        count -= half;
      } else {
        count = half;
      }
    }
  }
  // tile: one that there is.
  __device__ MatrixTile at(int tile, int tile_tokens, int tile_channels) {
    while (expert[1].first_tile <= tile) ++expert;
    const int num_rows = expert[1].row - expert->row;
    const int token_tiles = (num_rows + tile_tokens - 1) / tile_tokens;
    const int inside = tile - expert->first_tile;
    const int first = inside % token_tiles * tile_tokens;
    return {expert->matrix, inside / token_tiles * tile_channels, expert->row + first,
            min(tile_tokens, num_rows - first)};
  }
};

// ---- host ----

// The stack as one matrix [E * N, K].
inline ConstTensor all_matrices(const ConstTensor& stack) {
  return {stack.bytes, stack.dtype, Shape{stack.dim(0) * stack.dim(1), stack.dim(2)}};
}
// Rows of one expert, if they are spread evenly over those that may have any.
inline int64_t mean_rows(const ExpertMatmulOp& op) {
  return ceil_divide(op.plan.order.dim(0), std::max<int64_t>(std::min(op.plan.num_experts(), op.plan.order.dim(0)), 1));
}
// At most; a token has an expert once.
inline int64_t most_rows(const ExpertMatmulOp& op) { return op.plan.rows.dim(0); }

template <class Kind>
std::string experts_decline(const ExpertMatmulOp& op, const Launch& launch) {
  if (op.plan.num_experts() == 0) return "there are no experts on this rank";
  const std::string reason = operands_decline<Kind>(first_matrix(op), launch);
  return reason.empty() ? tma_declines(all_matrices(op.weight.data), "weight") : reason;
}

}  // namespace octet
