// The rows that rope_attention_decode makes of a token's projections: its rotated queries of a KV head and its new key
// and value, as octet/ops/rope_kv.h says, in shared memory; key and value go to the cache as well.
#pragma once

#include "octet/kernels/cuda/rows.cuh"
#include "octet/kernels/hopper/attention_warp.cuh"
#include "octet/ops/rope_kv.h"

namespace octet {

struct RopeInput {
  const BF16* qkv;
  const float* cos;
  const float* sin;
  const int32_t* slot_mapping;
  const float* q_norm;  // null: none
  const float* k_norm;
  void* k_cache;
  void* v_cache;
  int64_t qkv_stride, cos_stride, sin_stride;
  float norm_epsilon, k_scale, v_scale;
};

inline RopeInput rope_input(const RopeKvOp& op) {
  const auto floats = [](const ConstTensor& x) { return x ? x.data<float>() : nullptr; };
  return {.qkv = op.qkv.data<BF16>(),
          .cos = op.cos.data<float>(),
          .sin = op.sin.data<float>(),
          .slot_mapping = op.slot_mapping.data<int32_t>(),
          .q_norm = floats(op.q_norm),
          .k_norm = floats(op.k_norm),
          .k_cache = op.k_cache.bytes,
          .v_cache = op.v_cache.bytes,
          .qkv_stride = op.qkv.row_stride,
          .cos_stride = op.cos.row_stride,
          .sin_stride = op.sin.row_stride,
          .norm_epsilon = op.norm_epsilon,
          .k_scale = op.k_scale,
          .v_scale = op.v_scale};
}

// In shared memory.
template <class S>
struct NewRows {
  BF16* q;                  // [group, D]
  typename S::Element* kv;  // [2, D], divided by their scales as in the cache
};

// The token's cell in the cache. slot -1: it has none, and its cell is read as it is.
struct NewCell {
  int slot;
  bool writes;  // this CTA puts key and value there
};

// A lane's elements of a head: kPart from lane * kPart on, and those that rotate into them.
template <int kHeadDim>
struct HeadPart {
  static constexpr int kPart = kHeadDim / 64;
  static constexpr int kHalf = kHeadDim / 2;
  float first[kPart], second[kPart];

  __device__ void load(const BF16* head) {
    const int at = static_cast<int>(threadIdx.x) % 32 * kPart;
    load_f32(head + at, first);
    load_f32(head + kHalf + at, second);
  }
  template <class T>
  __device__ void store(T* head) const {
    const int at = static_cast<int>(threadIdx.x) % 32 * kPart;
    store_f32(head + at, first);
    store_f32(head + kHalf + at, second);
  }
  __device__ void normalize(const float* weight, float epsilon) {
    const int at = static_cast<int>(threadIdx.x) % 32 * kPart;
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < kPart; ++k) squares = fmaf(first[k], first[k], fmaf(second[k], second[k], squares));
    const float inverse = 1.0f / sqrtf(sum_of_lanes(squares) / static_cast<float>(kHeadDim) + epsilon);
#pragma unroll
    for (int k = 0; k < kPart; ++k) {
      first[k] *= inverse * weight[at + k];
      second[k] *= inverse * weight[kHalf + at + k];
    }
  }
  __device__ void rotate(const float (&cos)[kPart], const float (&sin)[kPart]) {
#pragma unroll
    for (int k = 0; k < kPart; ++k) {
      const float a = first[k];
      const float b = second[k];
      first[k] = a * cos[k] - b * sin[k];
      second[k] = b * cos[k] + a * sin[k];
    }
  }
  __device__ void divide(float scale) {
    const float inverse = 1.0f / scale;
#pragma unroll
    for (int k = 0; k < kPart; ++k) {
      first[k] = divided(first[k], scale, inverse);
      second[k] = divided(second[k], scale, inverse);
    }
  }
};

// The head of the projections that row r of KV head kv_head's is: the group's queries, then key and value.
__device__ inline int head_of(const AttentionInput& in, int kv_head, int r) {
  return r < in.group ? kv_head * in.group + r : in.num_heads + kv_head + (r - in.group) * in.num_kv_heads;
}

template <class S>
struct NewRow {
  HeadPart<S::kHeadDim> part;
  int r;
  bool exists;

  __device__ void load(const RopeInput& rope, const AttentionInput& in, int t, int kv_head, int row) {
    r = row;
    exists = row < in.group + 2;
    if (!exists) return;
    part.load(rope.qkv + t * rope.qkv_stride + int64_t{head_of(in, kv_head, row)} * S::kHeadDim);
  }

  template <int kPart>
  __device__ void finish(const RopeInput& rope, const AttentionInput& in, int kv_head, const NewCell& cell,
                         const float (&cos)[kPart], const float (&sin)[kPart], const NewRows<S>& rows) {
    if (!exists) return;
    const int which = r - in.group;  // 0: the key, 1: the value
    const float* const norm = which < 0 ? rope.q_norm : rope.k_norm;
    if (norm != nullptr && which < 1) part.normalize(norm, rope.norm_epsilon);
    if (which < 1) part.rotate(cos, sin);
    if (which < 0) return part.store(rows.q + r * S::kHeadDim);
    part.divide(which == 0 ? rope.k_scale : rope.v_scale);
    part.store(rows.kv + which * S::kHeadDim);
    if (!cell.writes || cell.slot < 0) return;
    const int64_t block = cell.slot >> log2_of(in.block_size);
    const int64_t row = int64_t{kv_head} * in.block_size + (cell.slot & (in.block_size - 1));
    auto* cache = static_cast<typename S::Element*>(which == 0 ? rope.k_cache : rope.v_cache);
    part.store(cache + block * (which == 0 ? in.k_block_stride : in.v_block_stride) + row * S::kHeadDim);
  }
};

__device__ inline void prefetch(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

// Before the projections are there: brings their lines, and the pages of what is read and written later, into reach.
template <class S>
__device__ void touch_rows(const RopeInput& rope, const AttentionInput& in, const AttentionOutput& out, int t,
                           int kv_head) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int r = warp; r < in.group + 2; r += kSplitWarps) {
    const BF16* const head = rope.qkv + t * rope.qkv_stride + int64_t{head_of(in, kv_head, r)} * S::kHeadDim;
    if (lane * 64 < S::kHeadDim) prefetch(head + lane * 64);
  }
  if (warp == 0 && lane * 32 < S::kHeadDim / 2) prefetch(rope.cos + t * rope.cos_stride + lane * 32);
  if (warp == 1 && lane * 32 < S::kHeadDim / 2) prefetch(rope.sin + t * rope.sin_stride + lane * 32);
  const int64_t column = int64_t{kv_head} * in.group * S::kHeadDim;
  if (threadIdx.x == 64)
    prefetch(static_cast<std::byte*>(out.out) + (t * out.out_stride + column) * (out.out_f32 ? 4 : 2));
  if (threadIdx.x == 96 && out.quantized != nullptr) {
    prefetch(out.quantized + t * out.quantized_stride + column);
    prefetch(out.scale + (out.dynamic ? t : 0));
  }
}

// Makes the rows of token t and KV head kv_head; a warp takes every kSplitWarps-th, two at a time.
template <class S>
__device__ void make_rows(const RopeInput& rope, const AttentionInput& in, int t, int kv_head, const NewCell& cell,
                          const NewRows<S>& rows) {
  constexpr int kPart = HeadPart<S::kHeadDim>::kPart;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  float cos[kPart];
  float sin[kPart];
  load_f32(rope.cos + t * rope.cos_stride + lane * kPart, cos);
  load_f32(rope.sin + t * rope.sin_stride + lane * kPart, sin);
  for (int r = warp; r < in.group + 2; r += 2 * kSplitWarps) {
    NewRow<S> pair[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) pair[i].load(rope, in, t, kv_head, r + i * kSplitWarps);
#pragma unroll
    for (int i = 0; i < 2; ++i) pair[i].finish(rope, in, kv_head, cell, cos, sin, rows);
  }
}

// Puts the new key and value in their places of a step's tile: row `row` of it.
template <class S>
__device__ void place_new_row(const NewRows<S>& rows, int row, uint32_t tile) {
  for (int i = static_cast<int>(threadIdx.x) % 32; i < 2 * S::kRowChunks; i += 32) {
    const uint4 words = reinterpret_cast<const uint4*>(rows.kv)[i];
    asm volatile(
        "st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(
            tile + static_cast<uint32_t>(i / S::kRowChunks * S::kTileBytes) + S::place(row, i % S::kRowChunks)),
        "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
        : "memory");
  }
  __syncwarp();
}

}  // namespace octet
