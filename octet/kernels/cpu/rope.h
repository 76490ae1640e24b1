// rope_kv: rotary embedding with the optional norm of each head before it, and the write of K and V into the paged
// cache.
#pragma once

#include <string>

#include "octet/kernels/cpu/elementwise.h"
#include "octet/kernels/cpu/split.h"
#include "octet/kernels/cpu/vector_math.h"
#include "octet/ops/ops.h"

namespace octet {

// rotate_half on the first 2 * half elements: (a, b) -> (a cos - b sin, b cos + a sin), b half elements behind a.
template <class V>
void rotate_head(float* head, const float* cos, const float* sin, int64_t half) {
  int64_t i = 0;
  for (; i + V::kLanes <= half; i += V::kLanes) {
    const auto a = V::load(head + i), b = V::load(head + half + i);
    const auto c = V::load(cos + i), s = V::load(sin + i);
    V::store(head + i, V::sub(V::mul(a, c), V::mul(b, s)));
    V::store(head + half + i, V::add(V::mul(b, c), V::mul(a, s)));
  }
  for (; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

// to = from / scale in the cache's type.
template <class V, class C>
void store_head(const float* from, float scale, int64_t count, C* to) {
  const auto by = V::set(scale);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) store_as<V>(to + i, V::div(V::load(from + i), by));
  if (i < count) store_as_partial<V>(to + i, V::div(load_partial<V>(from + i, count - i), by), count - i);
}

template <class V>
struct RopeRow {
  const RopeKvOp& op;
  const float* cos;
  const float* sin;
  float* head;  // scratch of one head

  // from, normed and rotated, in `head`.
  void rotate(const float* from, const ConstTensor& norm) const {
    const int64_t dim = op.head_dim();
    if (norm) {
      std::memcpy(head, from, static_cast<size_t>(dim) * sizeof(float));
      const float squares = add_and_sum_squares<V>(head, nullptr, dim);
      const float factor = 1.0f / std::sqrt(squares / static_cast<float>(dim) + op.norm_epsilon);
      scale_row<V>(from, factor, norm.data<float>(), dim, head);
    } else {
      std::memcpy(head, from, static_cast<size_t>(dim) * sizeof(float));
    }
    rotate_head<V>(head, cos, sin, op.cos.dim(1));
  }

  template <class C>
  void write_kv(int64_t t, int64_t slot) const {
    const int64_t dim = op.head_dim(), kv_heads = op.num_kv_heads(), block_size = op.block_size();
    const float* k = op.qkv.template row<float>(t) + op.num_heads() * dim;
    const float* v = k + kv_heads * dim;
    for (int64_t h = 0; h < kv_heads; ++h) {
      const int64_t offset = (h * block_size + slot % block_size) * dim;
      rotate(k + h * dim, op.k_norm);
      store_head<V>(head, op.k_scale_of(h), dim, op.k_cache.template row<C>(slot / block_size) + offset);
      store_head<V>(v + h * dim, op.v_scale_of(h), dim, op.v_cache.template row<C>(slot / block_size) + offset);
    }
  }

  // K and V first: q_out may lie in qkv, but only on q's own columns.
  void run(int64_t t) const {
    const int64_t dim = op.head_dim();
    const int64_t slot = op.slot_mapping.data<int32_t>()[t];
    if (slot >= 0) {
      switch (op.k_cache.dtype) {
        case DType::kF32:
          write_kv<float>(t, slot);
          break;
        case DType::kBF16:
          write_kv<BF16>(t, slot);
          break;
        case DType::kF8E4M3:
          write_kv<F8E4M3>(t, slot);
          break;
        default:
          write_kv<F8E5M2>(t, slot);
          break;
      }
    }
    const float* q = op.qkv.template row<float>(t);
    for (int64_t h = 0; h < op.num_heads(); ++h) {
      rotate(q + h * dim, op.q_norm);
      std::memcpy(op.q_out.template row<float>(t) + h * dim, head, static_cast<size_t>(dim) * sizeof(float));
    }
  }
};

template <class V>
void run_rope_kv(const RopeKvOp& op, const Launch& launch) {
  for_rows(launch, op.qkv.dim(0), op.qkv.dim(1), [&](int thread, int64_t begin, int64_t end) {
    auto* head = reinterpret_cast<float*>(launch.scratch->get(thread, op.head_dim() * int64_t{sizeof(float)}));
    for (int64_t t = begin; t < end; ++t) {
      RopeRow<V>{op, op.cos.template row<float>(t), op.sin.template row<float>(t), head}.run(t);
    }
  });
}

}  // namespace octet
