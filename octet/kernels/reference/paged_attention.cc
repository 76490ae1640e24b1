#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

// The keys one query sees: positions [begin, end) of sequence s.
struct Span {
  int64_t sequence;
  int64_t begin;
  int64_t end;
};

// Element where the head vector of position p lies in a cache.
int64_t cache_offset(const PagedAttentionOp& op, const ConstTensor& cache, int64_t sequence, int64_t head, int64_t p) {
  const int64_t block = op.block_table.row<int32_t>(sequence)[p / op.block_size()];
  OCTET_CHECK(block >= 0 && block < cache.dim(0));
  return block * cache.row_stride + (head * op.block_size() + p % op.block_size()) * op.head_dim();
}

void attend(const PagedAttentionOp& op, const Span& keys, int64_t kv_head, const float* query, float* out) {
  const int64_t d = op.head_dim();
  std::vector<float> row(static_cast<size_t>(d));
  std::vector<double> weights;
  double highest = -std::numeric_limits<double>::infinity();
  for (int64_t p = keys.begin; p < keys.end; ++p) {
    read_elements(op.k_cache, cache_offset(op, op.k_cache, keys.sequence, kv_head, p), d, row.data());
    double sum = 0.0;
    for (int64_t i = 0; i < d; ++i) sum += static_cast<double>(query[i]) * row[static_cast<size_t>(i)];
    weights.push_back(sum * op.k_scale_of(kv_head) * op.softmax_scale);
    highest = std::max(highest, weights.back());
  }
  double total = 0.0;
  for (double& weight : weights) total += weight = std::exp(weight - highest);
  std::vector<double> sums(static_cast<size_t>(op.value_dim()), 0.0);
  for (int64_t p = keys.begin; p < keys.end; ++p) {
    read_elements(op.v_cache, cache_offset(op, op.v_cache, keys.sequence, kv_head, p), d, row.data());
    const double weight = weights[static_cast<size_t>(p - keys.begin)] / total;
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * row[i];
  }
  for (size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<float>(sums[i] * op.v_scale_of(kv_head));
}

void attend_row(const PagedAttentionOp& op, int64_t t, const Span& keys) {
  const std::vector<float> q = read_row(op.q, t);
  std::vector<float> out(static_cast<size_t>(op.out.dim(1)));
  const int64_t heads_per_kv_head = op.num_heads() / op.num_kv_heads();
  for (int64_t h = 0; h < op.num_heads(); ++h) {
    attend(op, keys, h / heads_per_kv_head, q.data() + h * op.head_dim(), out.data() + h * op.value_dim());
  }
  write_row(op.out, t, out);
  if (op.quantized.data) write_activation_row(op.quantized, t, out);
}

void run(const PagedAttentionOp& op, const Launch& launch) {
  const int32_t* query_start = op.query_start.data<int32_t>();
  for (int64_t s = 0; s < op.num_sequences(); ++s) {
    const int64_t first_row = query_start[s];
    const int64_t num_queries = query_start[s + 1] - first_row;
    const int64_t num_keys = op.seq_lens.data<int32_t>()[s];
    OCTET_CHECK(first_row >= 0 && num_queries >= 0 && first_row + num_queries <= op.q.dim(0) &&
                num_queries <= num_keys);
    OCTET_CHECK(num_keys <= op.block_table.dim(1) * op.block_size());
    for_each(launch, num_queries, [&](int64_t i) {
      const int64_t position = num_keys - num_queries + i;
      const int64_t begin = op.sliding_window > 0 ? std::max<int64_t>(0, position - op.sliding_window + 1) : 0;
      attend_row(op, first_row + i, Span{.sequence = s, .begin = begin, .end = position + 1});
    });
  }
}

std::string declines(const PagedAttentionOp& op, const Launch&) {
  return op.quantized.data ? declines_activation(op.quantized.format) : "";
}

}  // namespace

Kernel<PagedAttentionOp> reference_paged_attention() {
  return {.name = "reference.paged_attention", .declines = declines, .run = run};
}

}  // namespace octet
