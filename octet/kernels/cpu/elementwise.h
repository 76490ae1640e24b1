// quantize, rms_norm, silu_and_mul, combine_experts, embedding: one pass per row, rows shared among threads when there
// are many.
#pragma once

#include <cmath>
#include <string>

#include "octet/kernels/cpu/declines.h"
#include "octet/kernels/cpu/quantize_row.h"
#include "octet/kernels/cpu/split.h"
#include "octet/kernels/cpu/vector_math.h"
#include "octet/ops/ops.h"

namespace octet {

// Where a kernel writes row t before quantisation: out itself when it is plain, scratch otherwise.
inline float* output_row(const QuantTensor& out, const Launch& launch, int thread, int64_t t) {
  if (!out.format.quantized()) return out.data.row<float>(t);
  return reinterpret_cast<float*>(launch.scratch->get(thread, out.data.dim(1) * int64_t{sizeof(float)}));
}

template <class V>
void run_quantize(const QuantizeOp& op, const Launch& launch) {
  const int64_t count = op.x.dim(1);
  for_rows(launch, op.x.dim(0), count, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* x = op.x.template row<float>(t);
      if (op.out.format.quantized()) {
        quantize_row<V>(x, op.out, t);
      } else {
        std::memcpy(op.out.data.template row<float>(t), x, static_cast<size_t>(count) * sizeof(float));
      }
    }
  });
}

// The vector at residual after residual += x (x may be null).
template <class V>
[[gnu::always_inline]] inline typename V::Float add_vector(float* residual, const float* x) {
  auto r = V::load(residual);
  if (x) {
    r = V::add(r, V::load(x));
    V::store(residual, r);
  }
  return r;
}

// residual += x (x may be null); returns the sum of residual's squares.
template <class V>
float add_and_sum_squares(float* residual, const float* x, int64_t count) {
  auto sum0 = V::zero();
  auto sum1 = V::zero();
  int64_t i = 0;
  for (; i + 2 * V::kLanes <= count; i += 2 * V::kLanes) {
    const auto r0 = add_vector<V>(residual + i, x ? x + i : nullptr);
    const auto r1 = add_vector<V>(residual + i + V::kLanes, x ? x + i + V::kLanes : nullptr);
    sum0 = V::fma(r0, r0, sum0);
    sum1 = V::fma(r1, r1, sum1);
  }
  if (i + V::kLanes <= count) {
    const auto r = add_vector<V>(residual + i, x ? x + i : nullptr);
    sum0 = V::fma(r, r, sum0);
    i += V::kLanes;
  }
  if (i < count) {
    auto r = load_partial<V>(residual + i, count - i);
    if (x) {
      r = V::add(r, load_partial<V>(x + i, count - i));
      store_partial<V>(residual + i, r, count - i);
    }
    sum1 = V::fma(r, r, sum1);
  }
  return V::sum(V::add(sum0, sum1));
}

// to = from * factor * weight
template <class V>
void scale_row(const float* from, float factor, const float* weight, int64_t count, float* to) {
  const auto by = V::set(factor);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) {
    V::store(to + i, V::mul(V::mul(V::load(from + i), by), V::load(weight + i)));
  }
  if (i < count) {
    const auto y = V::mul(V::mul(load_partial<V>(from + i, count - i), by), load_partial<V>(weight + i, count - i));
    store_partial<V>(to + i, y, count - i);
  }
}

template <class V>
void run_rms_norm(const RmsNormOp& op, const Launch& launch) {
  const int64_t count = op.residual.dim(1);
  const float* weight = op.weight.data<float>();
  for_rows(launch, op.residual.dim(0), 2 * count, [&](int thread, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* residual = op.residual.template row<float>(t);
      const float squares = add_and_sum_squares<V>(residual, op.x ? op.x.template row<float>(t) : nullptr, count);
      const float factor = 1.0f / std::sqrt(squares / static_cast<float>(count) + op.epsilon);
      float* y = output_row(op.out, launch, thread, t);
      scale_row<V>(residual, factor, weight, count, y);
      if (op.out.format.quantized()) quantize_row<V>(y, op.out, t);
    }
  });
}

template <class V>
[[gnu::always_inline]] inline typename V::Float silu(typename V::Float a) {
  return V::div(a, V::add(V::set(1.0f), exp<V>(V::sub(V::zero(), a))));
}

template <class V>
void silu_row(const float* gate, const float* up, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) {
    V::store(to + i, V::mul(silu<V>(V::load(gate + i)), V::load(up + i)));
  }
  if (i < count) {
    const auto y = V::mul(silu<V>(load_partial<V>(gate + i, count - i)), load_partial<V>(up + i, count - i));
    store_partial<V>(to + i, y, count - i);
  }
}

template <class V>
void run_silu_and_mul(const SiluAndMulOp& op, const Launch& launch) {
  const int64_t count = op.out.data.dim(1);
  for_rows(launch, op.x.dim(0), 4 * count, [&](int thread, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* x = op.x.template row<float>(t);
      float* y = output_row(op.out, launch, thread, t);
      silu_row<V>(x, x + count, count, y);
      if (op.out.format.quantized()) quantize_row<V>(y, op.out, t);
    }
  });
}

// to = from * factor
template <class V>
void multiply_row(const float* from, float factor, int64_t count, float* to) {
  const auto by = V::set(factor);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) V::store(to + i, V::mul(V::load(from + i), by));
  if (i < count) store_partial<V>(to + i, V::mul(load_partial<V>(from + i, count - i), by), count - i);
}

// to += from * factor
template <class V>
void add_multiple(const float* from, float factor, int64_t count, float* to) {
  const auto by = V::set(factor);
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) V::store(to + i, V::fma(V::load(from + i), by, V::load(to + i)));
  if (i == count) return;
  store_partial<V>(to + i, V::fma(load_partial<V>(from + i, count - i), by, load_partial<V>(to + i, count - i)),
                   count - i);
}

template <class V>
void run_combine_experts(const CombineExpertsOp& op, const Launch& launch) {
  const int64_t count = op.out.dim(1), slots = op.rows.dim(1);
  for_rows(launch, op.out.dim(0), (slots + 1) * count, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* out = op.out.template row<float>(t);
      if (op.shared) {
        const float factor = op.shared_gate ? 1.0f / (1.0f + std::exp(-*op.shared_gate.template row<float>(t))) : 1.0f;
        multiply_row<V>(op.shared.template row<float>(t), factor, count, out);
      } else {
        std::fill_n(out, count, 0.0f);
      }
      for (int64_t s = 0; s < slots; ++s) {
        const int32_t row = op.rows.template row<int32_t>(t)[s];
        if (row < 0) continue;
        add_multiple<V>(op.y.template row<float>(row), op.weights.template row<float>(t)[s], count, out);
      }
    }
  });
}

// to = from as F32, nothing behind it touched.
template <class V, class T>
void copy_row(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) V::store(to + i, V::load(from + i));
  if (i < count) store_partial<V>(to + i, load_partial<V>(from + i, count - i), count - i);
}

template <class V>
void run_embedding(const EmbeddingOp& op, const Launch& launch) {
  const int64_t count = op.table.dim(1);
  const int32_t* token_ids = op.token_ids.data<int32_t>();
  for_rows(launch, op.token_ids.dim(0), count, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* to = op.out.template row<float>(t);
      const int64_t row = token_ids[t] - op.first_id;
      if (row < 0 || row >= op.table.dim(0)) {
        std::fill(to, to + count, 0.0f);
      } else if (op.table.dtype == DType::kF32) {
        copy_row<V>(op.table.template row<float>(row), count, to);
      } else if (op.table.dtype == DType::kBF16) {
        copy_row<V>(op.table.template row<BF16>(row), count, to);
      } else {
        copy_row<V>(op.table.template row<F16>(row), count, to);
      }
    }
  });
}

}  // namespace octet
