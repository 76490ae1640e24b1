// The second kernel of split attention: adds the partial results of every row in the order of the splits and writes the
// row, plain and in 8 bits.
#pragma once

#include "octet/kernels/hopper/attention_plan.cuh"
#include "octet/kernels/hopper/warp_mma.cuh"

namespace octet {

inline constexpr int kCombineThreads = 256;
inline constexpr int kCombineManyRows = 64;
inline constexpr int kCombineWarps = kCombineThreads / 32;

// The partial results of one head of a row: split i at index first + i * stride of Partials, i from begin to end.
struct HeadPartials {
  int64_t first, stride;
  int begin, end;
};

// The sum over every kMembers-th split, from those whose number is `member` on; lane l holds kLane dimensions from
// l * kLane on. Splits keep their lanes and warps wherever `begin` lies, so leading splits that see nothing change
// nothing.
template <int kLane>
__device__ void sum_splits(const Partials& partials, const HeadPartials& head, int member, int num_members,
                           float (&sums)[kLane]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float highest = -INFINITY;
  for (int i = head.begin / 32 * 32 + lane; i < head.end; i += 32) {
    if (i >= head.begin) highest = fmaxf(highest, partials.softmax[head.first + i * head.stride].x);
  }
  for (int step = 16; step > 0; step /= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, step));
  float total = 0.0f;
  for (int i = head.begin / 32 * 32 + lane; i < head.end; i += 32) {
    if (i < head.begin) continue;
    const float2 softmax = partials.softmax[head.first + i * head.stride];
    total += softmax.y * exp2_fast(softmax.x - highest);
  }
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  for (float& sum : sums) sum = 0.0f;
#pragma unroll 4
  for (int i = head.begin + (member + num_members - head.begin % num_members) % num_members; i < head.end;
       i += num_members) {
    const int64_t index = head.first + i * head.stride;
    const float weight = exp2_fast(partials.softmax[index].x - highest);
    const float* const values = partials.sums + (index * 32 + lane) * kLane;
    for (int d = 0; d < kLane; d += 2) {
      const float2 pair = *reinterpret_cast<const float2*>(values + d);
      sums[d] += weight * pair.x;
      sums[d + 1] += weight * pair.y;
    }
  }
  for (float& sum : sums) sum /= total;
}

struct RowPlace {
  int sequence, row;  // row of q; sequence -1: there is none
};

// The row that cluster `index` makes. When sequences have few rows (max_rows, others are left out) it is counted by
// sequence, which takes no search.
__device__ inline RowPlace row_of(const AttentionInput& in, int index, int max_rows, int* shared) {
  if (max_rows >= kCombineManyRows) return {sequence_of_row(in, index, shared), index};
  const int s = index / max_rows;
  const int first = in.query_start[s];
  const int num_rows = in.query_start[s + 1] - first;
  const int i = index % max_rows;
  return {i < num_rows && num_rows <= max_rows ? s : -1, first + i};
}

// A cluster of CTAs makes one row, each CTA an equal share of its heads, each head by a team of warps.
template <int kHeadDim>
__global__ void __launch_bounds__(kCombineThreads, 2)
    combine(const AttentionInput in, const Partials partials, const AttentionOutput output, int max_rows) {
  constexpr int kLane = kHeadDim / 32;
  extern __shared__ float row_part[];
  __shared__ float of_warps[kCombineWarps][kHeadDim];
  __shared__ int found;
  const auto cluster = cooperative_groups::this_cluster();
  const int num_ranks = static_cast<int>(cluster.num_blocks());
  const int heads = in.num_heads / num_ranks;
  const int first_head = static_cast<int>(cluster.block_rank()) * heads;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int teams = heads >= 8 ? 8 : heads >= 4 ? 4 : heads >= 2 ? 2 : 1;
  const int members = kCombineWarps / teams;
  wait_for_previous();
  start_next();
  const RowPlace place = row_of(in, static_cast<int>(blockIdx.x) / num_ranks, max_rows, &found);
  if (place.sequence < 0) return;
  const int s = place.sequence;
  const int t = place.row;
  const SequenceView view(in, s);
  const Splits splits{partials.header->shift};
  const int first_split = view.first_split(splits);
  const int num_splits = view.num_splits(splits);
  const int64_t slot = partials.header->slot_start[s] + (t - view.first_row) * num_splits - first_split;
  for (int base = 0; base < heads; base += teams) {
    const int h = base + warp / members;
    if (h < heads) {
      const HeadPartials head{.first = slot * in.num_heads + first_head + h,
                              .stride = in.num_heads,
                              .begin = first_split,
                              .end = first_split + num_splits};
      float sums[kLane];
      sum_splits<kLane>(partials, head, warp % members, members, sums);
      for (int d = 0; d < kLane; ++d) of_warps[warp][lane * kLane + d] = sums[d];
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < min(teams, heads - base) * kHeadDim; i += kCombineThreads) {
      float sum = 0.0f;
      for (int m = 0; m < members; ++m) sum += of_warps[i / kHeadDim * members + m][i % kHeadDim];
      row_part[base * kHeadDim + i] = sum * in.v_scale;
    }
    __syncthreads();
  }
  write_row_part(output, t, first_head * kHeadDim, heads * kHeadDim, row_part);
}

template <int kHeadDim>
void launch_combine(const PagedAttentionOp& op, const Launch& launch, const Partials& partials, int64_t max_rows,
                    std::string_view name) {
  const int cluster = row_cluster(op.num_heads());
  const int64_t rows = max_rows >= kCombineManyRows ? op.q.dim(0) : op.num_sequences() * max_rows;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(rows * cluster)),
                          .block = dim3(kCombineThreads),
                          .shared_bytes = op.num_heads() / cluster * kHeadDim * int64_t{sizeof(float)},
                          .cluster = cluster};
  launch_kernel(name, launch, shape, combine<kHeadDim>, attention_input(op), partials, attention_output(op), max_rows);
}

}  // namespace octet
