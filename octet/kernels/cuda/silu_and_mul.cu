// cuda.silu_and_mul: octet/ops/silu_and_mul.h. A row is cut over a cluster of CTAs while rows are too few to fill the
// GPU; the products stay in registers until the largest of the row is known. How a row is cut changes no bit: a maximum
// is the same in any order.
#include <cooperative_groups.h>

#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

struct Arguments {
  RowInput x;  // gate, then up
  RowOutput out;
  int columns;        // of out
  int piece_columns;  // of a CTA
  int pieces;         // of a row
};

constexpr int kMaxPieces = 8;  // a cluster that every GPU can place

RowShape shape_of(const SiluAndMulOp& op, int64_t columns) { return row_shape(columns, {op.x, op.out.data}); }

// CTAs that share a row: as many as the GPU has room for and give a thread at least a vector of work.
int pieces_of(const SiluAndMulOp& op, const Launch& launch) {
  const int64_t rows = op.out.data.dim(0);
  const int64_t columns = op.out.data.dim(1);
  int pieces = 1;
  while (pieces < kMaxPieces && 2 * pieces * rows <= launch.gpu->num_sms && columns % (2 * pieces * 8) == 0 &&
         columns / (2 * pieces) >= 512) {
    pieces *= 2;
  }
  return pieces;
}

std::string declines(const SiluAndMulOp& op, const Launch&) {
  const std::string reason = declines_output(op.out.format);
  return reason.empty() ? declines_shape(shape_of(op, op.out.data.dim(1))) : reason;
}

// The quotient is within 2 units of the last place; where 1 + exp(-a) is too large for it, the result is 0 either way.
__device__ float silu(float a) { return __fdividef(a, 1.0f + expf(-a)); }

// Of all CTAs of the cluster.
__device__ float cluster_max(float value, float& shared) {
  const auto cluster = cooperative_groups::this_cluster();
  if (threadIdx.x == 0) shared = value;
  cluster.sync();
  const unsigned lane = threadIdx.x % 32;
  const float of_peer = lane < cluster.num_blocks() ? *cluster.map_shared_rank(&shared, lane) : 0.0f;
  value = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(of_peer)));
  cluster.sync();  // nobody leaves while peers read
  return value;
}

template <int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) silu_and_mul(const Arguments a) {
  __shared__ RowReduction shared;
  __shared__ float shared_max;
  const int piece = static_cast<int>(blockIdx.x) % a.pieces;
  const int64_t row = static_cast<int>(blockIdx.x) / a.pieces;
  const int first = piece * a.piece_columns;
  start_next();
  wait_for_previous();
  float y[kVectors][kVector] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column >= a.piece_columns) continue;
    float gate[kVector];
    float up[kVector];
    load_elements(a.x.data, a.x.f32, row * a.x.stride + first + column, gate);
    load_elements(a.x.data, a.x.f32, row * a.x.stride + a.columns + first + column, up);
#pragma unroll
    for (int k = 0; k < kVector; ++k) y[i][k] = silu(gate[k]) * up[k];
  }
  float amax = 0.0f;
  if (a.out.format == RowFormat::kDynamicToken) {
    amax = reduce_row(0.0f, largest_magnitude(y), shared).max;
    if (a.pieces > 1) amax = cluster_max(amax, shared_max);
  }
  const float scale = a.out.scale == nullptr ? 1.0f : output_scale(a.out, row, amax, threadIdx.x == 0 && piece == 0);
  write_row(a.out, row, first, a.piece_columns, scale, y);
}

void run(const SiluAndMulOp& op, const Launch& launch) {
  const int64_t num_rows = op.x.dim(0);
  const int64_t columns = op.out.data.dim(1);
  if (num_rows == 0 || columns == 0) return;
  const int pieces = pieces_of(op, launch);
  const Arguments arguments{.x = row_input(op.x),
                            .out = row_output(op.out),
                            .columns = static_cast<int>(columns),
                            .piece_columns = static_cast<int>(columns / pieces),
                            .pieces = pieces};
  const RowShape row = shape_of(op, columns / pieces);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_rows * pieces)),
                          .block = dim3(static_cast<unsigned>(row.threads)),
                          .cluster = arguments.out.format == RowFormat::kDynamicToken ? pieces : 1};
  dispatch_row(row, [&]<int kVector, int kVectors>() {
    launch_kernel("cuda.silu_and_mul", launch, shape, silu_and_mul<kVector, kVectors>, arguments);
  });
}

}  // namespace

Kernel<SiluAndMulOp> cuda_silu_and_mul() { return {.name = "cuda.silu_and_mul", .declines = declines, .run = run}; }

}  // namespace octet
