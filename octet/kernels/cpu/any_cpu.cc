// Rows for every processor: ops that move memory or call the C library, where threads are all there is to gain.
#include <cmath>
#include <cstring>

#include "octet/kernels/cpu/cpu.h"
#include "octet/kernels/cpu/split.h"

namespace octet {
namespace {

std::string gather_rows_declines(const GatherRowsOp&, const Launch&) { return {}; }

void run_gather_rows(const GatherRowsOp& op, const Launch& launch) {
  const int32_t* rows = op.rows.data<int32_t>();
  const int64_t element = dtype_bytes(op.x.dtype);
  const int64_t row_bytes = op.x.dim(1) * element;
  for_rows(launch, op.rows.dim(0), op.x.dim(1), [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(op.out.bytes + r * op.out.row_stride * element, op.x.bytes + rows[r] * op.x.row_stride * element,
                  static_cast<size_t>(row_bytes));
    }
  });
}

std::string rope_table_declines(const RopeTableOp& op, const Launch&) {
  return op.ntk_factor > 0.0f ? "has no dynamic NTK" : std::string();
}

void run_rope_table(const RopeTableOp& op, const Launch& launch) {
  constexpr int64_t kElementsPerAngle = 64;  // what a sine and a cosine cost, in elements of a simple pass
  const int64_t count = op.inv_freq.dim(0);
  const float* inv_freq = op.inv_freq.data<float>();
  const int32_t* positions = op.positions.data<int32_t>();
  for_rows(launch, op.positions.dim(0), count * kElementsPerAngle, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* cos = op.cos.row<float>(t);
      float* sin = op.sin.row<float>(t);
      for (int64_t i = 0; i < count; ++i) {
        const float angle = static_cast<float>(positions[t]) * inv_freq[i];
        cos[i] = op.attention_factor * std::cos(angle);
        sin[i] = op.attention_factor * std::sin(angle);
      }
    }
  });
}

}  // namespace

void add_any_cpu_kernels(KernelTable& table) {
  table.of<GatherRowsOp>().push_back({"cpu.gather_rows", &gather_rows_declines, &run_gather_rows});
  table.of<LatentKvOp>().push_back(cpu_latent_kv());
  table.of<RouteExpertsOp>().push_back(cpu_route_experts());
  table.of<RopeTableOp>().push_back({"cpu.rope_table", &rope_table_declines, &run_rope_table});
}

}  // namespace octet
