// The end of a row of attention, plain and in 8 bits, whose heads a cluster of CTAs has in shared memory in F32. Four
// neighbouring values are written at once: see declines_row_end().
#pragma once

#include <cooperative_groups.h>

#include "octet/kernels/cuda/attention_row.cuh"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {

// Whether every row starts on a boundary of `bytes`.
inline bool rows_start_at(const ConstTensor& x, int64_t bytes) {
  return !x || (reinterpret_cast<uintptr_t>(x.bytes) % static_cast<uintptr_t>(bytes) == 0 &&
                x.row_stride * dtype_bytes(x.dtype) % bytes == 0);
}

// Why write_part() cannot write the op's rows; empty: it can.
inline std::string declines_row_end(const PagedAttentionOp& op) {
  if (rows_start_at(op.out, 16) && rows_start_at(op.quantized.data, 4)) return "";
  return "writes rows of out and of the 8-bit result that are aligned to 16 and 4 bytes";
}

inline constexpr int kMaxRanks = 8;  // CTAs of a cluster
inline constexpr int kMaxRowWarps = 8;

// Until all of the row's CTAs are here; what they wrote to their shared memory is then there for all.
__device__ inline void sync_row(int num_ranks) {
  if (num_ranks > 1) {
    cooperative_groups::this_cluster().sync();
  } else {
    __syncthreads();
  }
}

// The CTA's part of a row: `heads` query heads from first_head on, and as many every stride_heads further.
struct RowPart {
  int t;
  int first_head, heads, stride_heads, count;
  int rank, num_ranks;
  int turn;  // 0 and 1, row by row
};

// Calls fn(column of the row, four values from there on) for all of the part, four neighbours a thread.
template <int kHeadDim, class Fn>
__device__ void for_each_four(const RowPart& part, const float* values, Fn fn) {
  const int columns = part.heads * kHeadDim;
  for (int p = 0; p < part.count; ++p) {
    for (int i = static_cast<int>(threadIdx.x) * 4; i < columns; i += static_cast<int>(blockDim.x) * 4) {
      fn((part.first_head + p * part.stride_heads) * kHeadDim + i,
         *reinterpret_cast<const float4*>(values + p * columns + i));
    }
  }
}

// Where the CTAs of a cluster find their row's largest magnitude; in shared memory. Rows take turns: a CTA may still
// read those of one while peers already write those of the next.
struct RowAmax {
  float of_ranks[2][kMaxRanks];
  float of_warps[kMaxRowWarps];
};

__device__ inline float row_amax(const RowPart& part, float largest, RowAmax& amax) {
  largest = max_of_lanes(largest);
  if (threadIdx.x % 32 == 0) amax.of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) largest = fmaxf(largest, amax.of_warps[w]);
  if (part.num_ranks == 1) return largest;
  // To all ranks, so that nobody reads what a CTA held that has ended.
  const auto cluster = cooperative_groups::this_cluster();
  float* const place = &amax.of_ranks[part.turn][part.rank];
  if (static_cast<int>(threadIdx.x) < part.num_ranks) *cluster.map_shared_rank(place, threadIdx.x) = largest;
  cluster.sync();
  for (int rank = 0; rank < part.num_ranks; ++rank) largest = fmaxf(largest, amax.of_ranks[part.turn][rank]);
  return largest;
}

// Writes the part from `values`, which all threads see.
template <int kHeadDim>
__device__ void write_part(const AttentionOutput& o, const RowPart& part, const float* values, RowAmax& amax) {
  float scale = 1.0f;
  if (o.quantized != nullptr && o.dynamic) {
    // Before anything is written: the meeting of the cluster would wait for that.
    float largest = 0.0f;
    for_each_four<kHeadDim>(part, values, [&](int, const float4& v) {
      largest = fmaxf(fmaxf(fmaxf(largest, fabsf(v.x)), fmaxf(fabsf(v.y), fabsf(v.z))), fabsf(v.w));
    });
    largest = row_amax(part, largest, amax);
    scale = fmaxf(divided(largest, kMaxF8E4M3, 1.0f / kMaxF8E4M3), kMinTokenScale);
    if (part.rank == 0 && threadIdx.x == 0) o.scale[part.t] = scale;
  } else if (o.quantized != nullptr) {
    scale = *o.scale;
  }
  const float inverse = 1.0f / scale;
  // Under an infinite scale x * 0 is the quotient.
  const float finite_scale = scale < INFINITY ? scale : 0.0f;
  for_each_four<kHeadDim>(part, values, [&](int column, const float4& v) {
    const int64_t at = part.t * o.out_stride + column;
    if (o.out_f32) {
      *reinterpret_cast<float4*>(static_cast<float*>(o.out) + at) = v;
    } else {
      const uint2 packed{pack_bf16({v.x, v.y}), pack_bf16({v.z, v.w})};
      *reinterpret_cast<uint2*>(static_cast<BF16*>(o.out) + at) = packed;
    }
    if (o.quantized == nullptr) return;
    const auto scaled = [&](float x) { return o.dynamic ? divided_finite(x, finite_scale, inverse) : x * inverse; };
    const uint32_t low = pack_e4m3({scaled(v.x), scaled(v.y)});
    const uint32_t high = pack_e4m3({scaled(v.z), scaled(v.w)});
    *reinterpret_cast<uint32_t*>(o.quantized + part.t * o.quantized_stride + column) = low | high << 16;
  });
}

}  // namespace octet
