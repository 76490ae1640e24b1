// The second kernel of split attention: adds the partial results of every row in the order of the line
// (attention_line.cuh) and writes the row, plain and in 8 bits.
#pragma once

#include "octet/kernels/hopper/attention_line.cuh"
#include "octet/kernels/hopper/attention_row_end.cuh"
#include "octet/kernels/hopper/warp_mma.cuh"

namespace octet {

inline constexpr int kCombineThreads = 256;
inline constexpr int kCombineManyRows = 64;
inline constexpr int kCombineWarps = kCombineThreads / 32;
static_assert(kCombineWarps <= kMaxRowWarps);
inline constexpr int64_t kMaxRowBytes = 32 << 10;  // of a row in one CTA

// The partial results of one head of a row: that of warp i at index first + i * stride of Partials, i from begin to
// end.
struct HeadPartials {
  int64_t first, stride;
  int begin, end;
};

// kLane neighbouring dimensions of a partial result, weighted and added.
template <int kLane>
struct PartialVector {
  float2 pairs[kLane / 2];

  __device__ void load(const float* from) {
    for (int i = 0; i < kLane / 2; ++i) pairs[i] = reinterpret_cast<const float2*>(from)[i];
  }
  __device__ void add(float weight, const PartialVector& other) {
    for (int i = 0; i < kLane / 2; ++i) {
      pairs[i].x += weight * other.pairs[i].x;
      pairs[i].y += weight * other.pairs[i].y;
    }
  }
};

// The sum over every num_members-th partial result; lane l holds kLane dimensions from l * kLane on.
template <int kLane>
__device__ PartialVector<kLane> sum_partials(const Partials& partials, const HeadPartials& head, int member,
                                             int num_members) {
  constexpr int kAhead = 4;  // loads under way
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto softmax_of = [&](int i) { return partials.softmax[head.first + i * head.stride]; };
  const int mine = head.begin + member;
  PartialVector<kLane> ahead[kAhead];
  float scores[kAhead];
  const auto load = [&](int first) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = first + j * num_members;
      if (i >= head.end) continue;
      ahead[j].load(partials.sums + ((head.first + i * head.stride) * 32 + lane) * kLane);
      scores[j] = softmax_of(i).x;
    }
  };
  load(mine);
  float highest = -INFINITY;
  const int lane_first = head.begin + lane;
  for (int i = lane_first; i < head.end; i += 32) highest = fmaxf(highest, softmax_of(i).x);
  for (int step = 16; step > 0; step /= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, step));
  float total = 0.0f;
  for (int i = lane_first; i < head.end; i += 32) total += softmax_of(i).y * exp2_fast(softmax_of(i).x - highest);
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  PartialVector<kLane> sum{};
  for (int first = mine; first < head.end; first += kAhead * num_members) {
    if (first != mine) load(first);
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * num_members < head.end) sum.add(exp2_fast(scores[j] - highest), ahead[j]);
    }
  }
  PartialVector<kLane> result{};
  result.add(1.0f / total, sum);
  return result;
}

struct RowPlace {
  int sequence, row;  // row of q; sequence -1: there is none
  SequenceView view;
};

// The row that cluster `index` makes. When sequences have few rows (max_rows, others are left out) it is counted by
// sequence, which takes no search; neither does the usual step of one row a sequence.
__device__ inline RowPlace row_of(const AttentionInput& in, int index, int max_rows, int* shared) {
  const bool by_sequence = max_rows < kCombineManyRows;
  int s = by_sequence ? index / max_rows : min(index, in.num_sequences - 1);
  const SequenceView likely(in, s);
  if (by_sequence) {
    const int i = index % max_rows;
    const bool exists = i < likely.num_rows && likely.num_rows <= max_rows;
    return {exists ? s : -1, likely.first_row + i, likely};
  }
  if (likely.first_row == index && likely.num_rows == 1) return {s, index, likely};
  s = sequence_of_row(in, index, shared);
  return {s, index, s < 0 ? likely : SequenceView(in, s)};
}

// Where decode has put the partial results of a row's heads.
template <int kRows>
struct RowPartials {
  int line_start, unit_start, steps, row_blocks, share, first_row, group;

  __device__ RowPartials(const AttentionInput& in, const PartialHeader& header, const RowPlace& place)
      : line_start(header.line_start[place.sequence]),
        unit_start(header.unit_start[place.sequence]),
        steps(place.view.num_pieces(kStepKeys)),
        row_blocks(row_blocks_of(in, place.view, kRows)),
        share(header.share),
        first_row((place.row - place.view.first_row) * in.group),
        group(in.group) {}

  __device__ HeadPartials of_head(int head) const {
    const int row = first_row + head % group;
    const int head_block = head / group * row_blocks + row / kRows;
    const int begin = line_start + head_block * (kUnitCost + steps) + kUnitCost;
    return {.first = int64_t{unit_start + head_block} * kRows + row % kRows,
            .stride = kRows,
            .begin = begin / share,
            .end = (begin + steps - 1) / share + 1};
  }
};

// A cluster of CTAs makes one row, each CTA an equal share of its heads, each head by a team of warps.
template <int kHeadDim, int kRows>
__global__ void __launch_bounds__(kCombineThreads, 2)
    combine(const AttentionInput in, const Partials partials, const AttentionOutput output, int max_rows) {
  constexpr int kLane = kHeadDim / 32;
  extern __shared__ __align__(16) float row_part[];
  __shared__ RowAmax amax;
  __shared__ float of_warps[kCombineWarps][kHeadDim];
  __shared__ int found;
  const auto cluster = cooperative_groups::this_cluster();
  const int num_ranks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int heads = in.num_heads / num_ranks;
  const int first_head = rank * heads;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int teams = heads >= 8 ? 8 : heads >= 4 ? 4 : heads >= 2 ? 2 : 1;
  const int members = kCombineWarps / teams;
  cluster.barrier_arrive();  // this CTA has begun: others may write to its shared memory
  const RowPlace place = row_of(in, static_cast<int>(blockIdx.x) / num_ranks, max_rows, &found);
  wait_for_previous();
  start_next();
  cluster.barrier_wait();
  if (place.sequence < 0) return;
  const RowPartials<kRows> row(in, *partials.header, place);
  for (int base = 0; base < heads; base += teams) {
    const int h = base + warp / members;
    if (h < heads) {
      const PartialVector<kLane> sum =
          sum_partials<kLane>(partials, row.of_head(first_head + h), warp % members, members);
      for (int i = 0; i < kLane / 2; ++i) reinterpret_cast<float2*>(of_warps[warp] + lane * kLane)[i] = sum.pairs[i];
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < min(teams, heads - base) * kHeadDim; i += kCombineThreads) {
      float sum = 0.0f;
      for (int m = 0; m < members; ++m) sum += of_warps[i / kHeadDim * members + m][i % kHeadDim];
      row_part[base * kHeadDim + i] = sum * in.v_scale;
    }
    __syncthreads();
  }
  const RowPart part{.t = place.row,
                     .first_head = first_head,
                     .heads = heads,
                     .stride_heads = 0,
                     .count = 1,
                     .rank = rank,
                     .num_ranks = num_ranks,
                     .turn = 0};
  write_part<kHeadDim>(output, part, row_part, amax);
}

// CTAs that share a row: as many as a cluster may have, unless so many do not fit the GPU at once, two an SM: a second
// round would take as long as the first.
inline int combine_cluster(const PagedAttentionOp& op, int64_t rows, const Launch& launch) {
  int cluster = row_cluster(op.num_heads());
  const int64_t row_bytes = op.num_heads() * op.head_dim() * int64_t{sizeof(float)};
  while (cluster > 1 && cluster * rows > int64_t{2} * launch.gpu->num_sms &&
         row_bytes / (cluster / 2) <= kMaxRowBytes) {
    cluster /= 2;
  }
  return cluster;
}

template <int kHeadDim, int kRows>
void launch_combine(const PagedAttentionOp& op, const Launch& launch, const Partials& partials, int64_t max_rows,
                    std::string_view name) {
  const int64_t rows = max_rows >= kCombineManyRows ? op.q.dim(0) : op.num_sequences() * max_rows;
  const int cluster = combine_cluster(op, rows, launch);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(rows * cluster)),
                          .block = dim3(kCombineThreads),
                          .shared_bytes = op.num_heads() / cluster * kHeadDim * int64_t{sizeof(float)},
                          .cluster = cluster};
  launch_kernel(name, launch, shape, combine<kHeadDim, kRows>, attention_input(op), partials, attention_output(op),
                max_rows);
}

}  // namespace octet
