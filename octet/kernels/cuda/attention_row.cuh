// What the paged-attention kernels share: the op as plain arguments, and the end of a row, where a cluster of CTAs that
// holds one row of `out` in F32 writes it, plain and in 8 bits.
#pragma once

#include <cooperative_groups.h>

#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/ops/paged_attention.h"
#include "octet/ops/quantize.h"

namespace octet {

struct AttentionInput {
  const void* q;
  const void* k_cache;
  const void* v_cache;
  const int32_t* query_start;
  const int32_t* seq_lens;
  const int32_t* block_table;
  int64_t q_stride, k_block_stride, v_block_stride, table_stride;
  int num_sequences, num_heads, num_kv_heads, head_dim, value_dim, block_size;
  int group;           // query heads of a KV head
  int sliding_window;  // 0: none
  float score_scale;   // k_scale * softmax_scale
  float v_scale;
  bool q_f32;
};

struct AttentionOutput {
  void* out;
  uint8_t* quantized;  // null: none
  float* scale;        // one a row (dynamic), or one given
  int64_t out_stride, quantized_stride;
  bool out_f32, dynamic;
};

inline AttentionInput attention_input(const PagedAttentionOp& op) {
  return {.q = op.q.bytes,
          .k_cache = op.k_cache.bytes,
          .v_cache = op.v_cache.bytes,
          .query_start = op.query_start.data<int32_t>(),
          .seq_lens = op.seq_lens.data<int32_t>(),
          .block_table = op.block_table.data<int32_t>(),
          .q_stride = op.q.row_stride,
          .k_block_stride = op.k_cache.row_stride,
          .v_block_stride = op.v_cache.row_stride,
          .table_stride = op.block_table.row_stride,
          .num_sequences = static_cast<int>(op.num_sequences()),
          .num_heads = static_cast<int>(op.num_heads()),
          .num_kv_heads = static_cast<int>(op.num_kv_heads()),
          .head_dim = static_cast<int>(op.head_dim()),
          .value_dim = static_cast<int>(op.value_dim()),
          .block_size = static_cast<int>(op.block_size()),
          .group = static_cast<int>(op.num_heads() / op.num_kv_heads()),
          .sliding_window = static_cast<int>(op.sliding_window),
          .score_scale = op.k_scale * op.softmax_scale,
          .v_scale = op.v_scale,
          .q_f32 = op.q.dtype == DType::kF32};
}

inline AttentionOutput attention_output(const PagedAttentionOp& op) {
  AttentionOutput output{.out = op.out.bytes, .out_stride = op.out.row_stride, .out_f32 = op.out.dtype == DType::kF32};
  if (op.quantized.data) {
    output.quantized = reinterpret_cast<uint8_t*>(op.quantized.data.bytes);
    output.scale = op.quantized.scale.data<float>();
    output.quantized_stride = op.quantized.data.row_stride;
    output.dynamic = op.quantized.format.dynamic;
  }
  return output;
}

// Whether the end of a row writes the op's 8-bit format itself.
inline bool writes_quantized(const PagedAttentionOp& op) {
  const QuantFormat& format = op.quantized.format;
  return !op.quantized.data || format == kF8DynamicToken || format == kF8StaticTensor;
}
inline QuantizeOp quantize_after(const PagedAttentionOp& op) { return {.out = op.quantized, .x = op.out}; }

// Why neither it nor cuda.quantize behind it can write that format, or it cannot undo the scales of its values; empty =
// they can.
inline std::string declines_quantized(const PagedAttentionOp& op, const Launch& launch) {
  if (op.k_head_scale) return "takes one scale of keys and one of values, not one for each head";
  return writes_quantized(op) ? "" : cuda_quantize().declines(quantize_after(op), launch);
}

// Runs rows(op) such that the op's 8-bit format is written too.
template <class Rows>
void run_quantized(const PagedAttentionOp& op, const Launch& launch, Rows&& rows) {
  if (writes_quantized(op)) return rows(op);
  PagedAttentionOp plain = op;
  plain.quantized = {};
  rows(plain);
  cuda_quantize().run(quantize_after(op), launch);
}

// CTAs that share a row: as many as a cluster may have everywhere, each with as many heads.
inline int row_cluster(int64_t num_heads) {
  for (const int size : {8, 4, 2}) {
    if (num_heads % size == 0) return size;
  }
  return 1;
}

// Of a power of two.
__device__ inline int log2_of(int n) { return 31 - __clz(n); }

// The sequence that row t belongs to, found by all threads of the CTA together; -1: none (rows that pad a batch).
__device__ inline int sequence_of_row(const AttentionInput& in, int t, int* shared) {
  if (threadIdx.x == 0) *shared = -1;
  __syncthreads();
  for (int s = static_cast<int>(threadIdx.x); s < in.num_sequences; s += static_cast<int>(blockDim.x)) {
    if (in.query_start[s] <= t && t < in.query_start[s + 1]) *shared = s;
  }
  __syncthreads();
  return *shared;
}

// The largest `value` of all threads of the cluster; NaN does not count. `shared`: a float of this CTA that peers read.
__device__ inline float cluster_max(float value, float* shared) {
  __shared__ float of_warps[32];
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / 32; ++w) value = fmaxf(value, of_warps[w]);
  if (threadIdx.x == 0) *shared = value;
  const auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  for (unsigned rank = 0; rank < cluster.num_blocks(); ++rank) {
    value = fmaxf(value, *cluster.map_shared_rank(shared, rank));
  }
  cluster.sync();  // nobody leaves while peers read
  return value;
}

// Writes columns [first, first + count) of row t from `values` in shared memory. All CTAs of the cluster call it for
// the same row, each with its own columns. The 8-bit row is made of the F32 values by the rules of
// octet/ops/quantize.h.
__device__ inline void write_row_part(const AttentionOutput& o, int64_t t, int first, int count, const float* values) {
  const int thread = static_cast<int>(threadIdx.x);
  const int num_threads = static_cast<int>(blockDim.x);
  float amax = 0.0f;
  for (int i = thread; i < count; i += num_threads) {
    store_f32_or_bf16(o.out, t * o.out_stride + first + i, values[i], o.out_f32);
    amax = fmaxf(amax, fabsf(values[i]));
  }
  if (o.quantized == nullptr) return;
  __shared__ float amax_of_cta;
  float scale = 1.0f;
  if (o.dynamic) {
    scale = fmaxf(cluster_max(amax, &amax_of_cta) / kMaxF8E4M3, kMinTokenScale);
    if (thread == 0 && first == 0) o.scale[t] = scale;
  }
  const float inverse = o.dynamic ? 1.0f : 1.0f / *o.scale;
  for (int i = thread; i < count; i += num_threads) {
    const float scaled = o.dynamic ? values[i] / scale : values[i] * inverse;
    o.quantized[t * o.quantized_stride + first + i] = static_cast<uint8_t>(pack_e4m3({scaled, 0.0f}));
  }
}

}  // namespace octet
