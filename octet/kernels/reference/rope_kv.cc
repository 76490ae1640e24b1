#include <cmath>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

using Head = std::vector<double>;

Head read_head(const ConstTensor& qkv, int64_t t, int64_t head, int64_t head_dim) {
  std::vector<float> values(static_cast<size_t>(head_dim));
  read_elements(qkv, t * qkv.row_stride + head * head_dim, head_dim, values.data());
  return Head(values.begin(), values.end());
}

void normalize(Head& head, const ConstTensor& weight, float epsilon) {
  if (!weight) return;
  double sum_of_squares = 0.0;
  for (const double value : head) sum_of_squares += value * value;
  const double inverse =
      1.0 / std::sqrt(sum_of_squares / static_cast<double>(head.size()) + static_cast<double>(epsilon));
  for (size_t i = 0; i < head.size(); ++i) head[i] *= inverse * weight.data<float>()[i];
}

void rotate(Head& head, const RopeKvOp& op, int64_t t) {
  const auto half = static_cast<size_t>(op.cos.dim(1));
  const float* cos = op.cos.row<float>(t);
  const float* sin = op.sin.row<float>(t);
  for (size_t i = 0; i < half; ++i) {
    const double a = head[i];
    const double b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

std::vector<float> rounded(const Head& head) {
  std::vector<float> values;
  for (const double value : head) values.push_back(static_cast<float>(value));
  return values;
}

void write_cache(const RopeKvOp& op, const Tensor& cache, int64_t slot, int64_t head, std::vector<float> values,
                 float scale) {
  for (float& value : values) value /= scale;
  const int64_t block = slot / op.block_size();
  const int64_t offset = slot % op.block_size();
  write_elements(cache, block * cache.row_stride + (head * op.block_size() + offset) * op.head_dim(), values);
}

void run(const RopeKvOp& op, const Launch&) {
  const int64_t d = op.head_dim();
  for (int64_t t = 0; t < op.qkv.dim(0); ++t) {
    const int64_t slot = op.slot_mapping.data<int32_t>()[t];
    OCTET_CHECK(slot < op.k_cache.dim(0) * op.block_size());
    for (int64_t h = 0; h < op.num_kv_heads() && slot >= 0; ++h) {
      Head k = read_head(op.qkv, t, op.num_heads() + h, d);
      normalize(k, op.k_norm, op.norm_epsilon);
      rotate(k, op, t);
      write_cache(op, op.k_cache, slot, h, rounded(k), op.k_scale_of(h));
      const Head v = read_head(op.qkv, t, op.num_heads() + op.num_kv_heads() + h, d);
      write_cache(op, op.v_cache, slot, h, rounded(v), op.v_scale_of(h));
    }
    for (int64_t h = 0; h < op.num_heads(); ++h) {
      Head q = read_head(op.qkv, t, h, d);
      normalize(q, op.q_norm, op.norm_epsilon);
      rotate(q, op, t);
      write_elements(op.q_out, t * op.q_out.row_stride + h * d, rounded(q));
    }
  }
}

}  // namespace

Kernel<RopeKvOp> reference_rope_kv() {
  return {.name = "reference.rope_kv",
          .declines = [](const RopeKvOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet
