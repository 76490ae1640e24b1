// latent_kv for every processor: a few hundred elements a token, tokens shared among threads.
#include <cmath>
#include <vector>

#include "octet/kernels/cpu/cpu.h"
#include "octet/kernels/cpu/split.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

void rotate(const LatentKvOp& op, int64_t t, const float* from, float* to) {
  const int64_t half = op.cos.dim(1);
  const float* cos = op.cos.row<float>(t);
  const float* sin = op.sin.row<float>(t);
  const bool neighbours = op.pairs == LatentKvOp::Pairs::kNeighbours;
  const int64_t step = neighbours ? 2 : 1, apart = neighbours ? 1 : half;
  for (int64_t i = 0; i < half; ++i) {
    const float a = from[step * i], b = from[step * i + apart];
    to[i] = a * cos[i] - b * sin[i];
    to[half + i] = b * cos[i] + a * sin[i];
  }
}

void write_cache(const LatentKvOp& op, int64_t t, std::vector<float>& entry) {
  const int64_t slot = op.slot_mapping.data<int32_t>()[t], latent = op.latent_dim();
  if (slot < 0) return;
  const float* kv = op.kv.row<float>(t);
  const float* norm = op.norm.data<float>();
  double squares = 0.0;
  for (int64_t i = 0; i < latent; ++i) squares += static_cast<double>(kv[i]) * static_cast<double>(kv[i]);
  const auto factor =
      static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(latent) + static_cast<double>(op.norm_epsilon)));
  for (int64_t i = 0; i < latent; ++i) entry[static_cast<size_t>(i)] = kv[i] * factor * norm[i];
  rotate(op, t, kv + latent, entry.data() + latent);
  const int64_t at = slot / op.block_size() * op.cache.row_stride + slot % op.block_size() * op.cached_dim();
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2>(op.cache.dtype, [&]<DType D>() {
    auto* to = op.cache.data<CType<D>>() + at;
    for (const float value : entry) *to++ = from_f32<CType<D>>(value / op.scale);
  });
}

std::string declines(const LatentKvOp& op, const Launch&) { return op.kv.dtype == DType::kF32 ? "" : "kv must be f32"; }

void run(const LatentKvOp& op, const Launch& launch) {
  const int64_t query = op.query_dim(), passed = query - op.rotated_dim(), cached = op.cached_dim();
  for_rows(launch, op.kv.dim(0), 4 * cached + op.q.dim(1), [&](int, int64_t begin, int64_t end) {
    std::vector<float> entry(static_cast<size_t>(cached));
    for (int64_t t = begin; t < end; ++t) {
      write_cache(op, t, entry);
      for (int64_t h = 0; h < op.num_heads(); ++h) {
        rotate(op, t, op.q.row<float>(t) + h * query + passed, op.q_out.row<float>(t) + h * cached + op.latent_dim());
      }
    }
  });
}

}  // namespace

Kernel<LatentKvOp> cpu_latent_kv() { return {.name = "cpu.latent_kv", .declines = &declines, .run = &run}; }

}  // namespace octet
