#include <cmath>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

// R elements rotated, as halves.
void rotate(const LatentKvOp& op, int64_t t, const float* from, float* to) {
  const int64_t half = op.cos.dim(1);
  for (int64_t i = 0; i < half; ++i) {
    const bool neighbours = op.pairs == LatentKvOp::Pairs::kNeighbours;
    const double a = from[neighbours ? 2 * i : i], b = from[neighbours ? 2 * i + 1 : i + half];
    const double cos = op.cos.row<float>(t)[i], sin = op.sin.row<float>(t)[i];
    to[i] = static_cast<float>(a * cos - b * sin);
    to[half + i] = static_cast<float>(b * cos + a * sin);
  }
}

void write_cache(const LatentKvOp& op, int64_t t) {
  const int64_t slot = op.slot_mapping.data<int32_t>()[t], latent = op.latent_dim();
  OCTET_CHECK(slot < op.cache.dim(0) * op.block_size());
  if (slot < 0) return;
  std::vector<float> kv = read_row(op.kv, t);
  double squares = 0.0;
  for (int64_t i = 0; i < latent; ++i)
    squares += static_cast<double>(kv[static_cast<size_t>(i)]) * kv[static_cast<size_t>(i)];
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(latent) + static_cast<double>(op.norm_epsilon));
  std::vector<float> entry(kv.size());
  for (int64_t i = 0; i < latent; ++i)
    entry[static_cast<size_t>(i)] = static_cast<float>(kv[static_cast<size_t>(i)] * factor * op.norm.data<float>()[i]);
  rotate(op, t, kv.data() + latent, entry.data() + latent);
  for (float& value : entry) value /= op.scale;
  write_elements(op.cache, slot / op.block_size() * op.cache.row_stride + slot % op.block_size() * op.cached_dim(),
                 entry);
}

void run(const LatentKvOp& op, const Launch&) {
  const int64_t rotated = op.rotated_dim(), passed = op.query_dim() - rotated;
  for (int64_t t = 0; t < op.kv.dim(0); ++t) {
    write_cache(op, t);
    const std::vector<float> q = read_row(op.q, t);
    std::vector<float> part(static_cast<size_t>(rotated));
    for (int64_t h = 0; h < op.num_heads(); ++h) {
      rotate(op, t, q.data() + h * op.query_dim() + passed, part.data());
      write_elements(op.q_out, t * op.q_out.row_stride + h * op.cached_dim() + op.latent_dim(), part);
    }
  }
}

}  // namespace

Kernel<LatentKvOp> reference_latent_kv() {
  return {.name = "reference.latent_kv",
          .declines = [](const LatentKvOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet
