// cuda.embedding: octet/ops/embedding.h. A thread makes one vector of 8 elements (or one element, where rows are not
// aligned to 16 bytes) of one row.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kThreads = 128;

struct Arguments {
  void* out;
  const void* table;
  const int32_t* token_ids;
  int64_t out_stride, table_stride, first_id, num_ids;
  int columns;
  bool out_f32;
};

std::string declines(const EmbeddingOp&, const Launch&) { return ""; }

template <class T, int kVector>
__global__ void __launch_bounds__(kThreads) embedding(const Arguments a) {
  const int64_t t = blockIdx.x;
  const int column = (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * kVector;
  start_next();
  wait_for_previous();
  if (column >= a.columns) return;
  float values[kVector] = {};
  const int64_t row = a.token_ids[t] - a.first_id;
  if (row >= 0 && row < a.num_ids) load_f32(static_cast<const T*>(a.table) + row * a.table_stride + column, values);
  store_elements(a.out, a.out_f32, t * a.out_stride + column, values);
}

void run(const EmbeddingOp& op, const Launch& launch) {
  const int64_t columns = op.out.dim(1);
  if (op.out.dim(0) == 0 || columns == 0) return;
  const Arguments arguments{.out = op.out.bytes,
                            .table = op.table.bytes,
                            .token_ids = op.token_ids.data<int32_t>(),
                            .out_stride = op.out.row_stride,
                            .table_stride = op.table.row_stride,
                            .first_id = op.first_id,
                            .num_ids = op.table.dim(0),
                            .columns = static_cast<int>(columns),
                            .out_f32 = op.out.dtype == DType::kF32};
  const bool aligned = has_aligned_rows(columns, {op.out, op.table});
  const int64_t per_cta = kThreads * (aligned ? 8 : 1);
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(op.out.dim(0)), static_cast<unsigned>((columns + per_cta - 1) / per_cta)),
      .block = dim3(kThreads)};
  dispatch<DType::kF32, DType::kBF16, DType::kF16>(op.table.dtype, [&]<DType kTable>() {
    using T = CType<kTable>;
    launch_kernel("cuda.embedding", launch, shape, aligned ? embedding<T, 8> : embedding<T, 1>, arguments);
  });
}

}  // namespace

Kernel<EmbeddingOp> cuda_embedding() { return {.name = "cuda.embedding", .declines = declines, .run = run}; }

}  // namespace octet
