// cuda.silu_and_mul, cuda.expert_silu_and_mul: octet/ops/silu_and_mul.h, expert_silu_and_mul.h. A row is cut over
// several CTAs, a cluster where they must agree on its largest value; the products stay in registers until it is known.
// How a row is cut changes no bit: a maximum is the same in any order.
#include <cooperative_groups.h>

#include "octet/kernels/cuda/expert_rows.cuh"
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

struct Arguments {
  RowInput x;  // gate, then up
  RowOutput out;
  ExpertRows experts;  // of which each may have a scale of its own
  bool scale_per_expert;
  int columns;        // of out
  int piece_columns;  // of a CTA
  int pieces;         // of a row
};

constexpr int kMaxPieces = 8;  // a cluster that every GPU can place

RowShape shape_of(const SiluAndMulOp& op, int64_t columns) { return row_shape(columns, {op.x, op.out.data}); }

// CTAs that share a row. Where the output needs no maximum, enough for a vector a thread, and more to fill the GPU;
// where it does, a whole cluster for long rows that are few, since clusters cost half a microsecond.
int pieces_of(const SiluAndMulOp& op, const Launch& launch) {
  const int64_t rows = op.out.data.dim(0);
  const int64_t columns = op.out.data.dim(1);
  const bool has_groups = op.out.format.granularity == Granularity::kGroup;
  const bool has_maximum = op.out.format.dynamic && !has_groups;
  const int unit = has_groups ? kRowGroup : 8;
  if (has_maximum && (columns <= 8 * kRowThreads || 2 * rows > launch.gpu->num_sms)) return 1;
  const auto wants_more = [&](int pieces) {
    return has_maximum || columns > 8 * kRowThreads * pieces || 2 * pieces * rows <= launch.gpu->num_sms;
  };
  int pieces = 1;
  while (pieces < kMaxPieces && wants_more(pieces) && columns % (2 * pieces * unit) == 0 &&
         columns / (2 * pieces) >= 512) {
    pieces *= 2;
  }
  return pieces;
}

std::string declines(const SiluAndMulOp& op, const Launch&) {
  const RowShape shape = shape_of(op, op.out.data.dim(1));
  const std::string reason = declines_output(op.out.format, shape);
  return reason.empty() ? declines_shape(shape) : reason;
}

// By the processor's estimates of 2^x and 1 / x, within 2 units of the last place each; the argument of 2^x is rounded,
// which counts where the result is small. Beyond their range 1 + exp(-a) is infinite and the result 0.
__device__ float silu(float a) {
  float power;
  float quotient;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(a * -1.44269504f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(quotient) : "f"(1.0f + power));
  return a * quotient;
}

// The largest value of all CTAs of the cluster, each of which writes its own to all. `of_peers` is shared memory that
// nothing else uses. Every thread has called arrive_at_start() before.
__device__ void arrive_at_start() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ float cluster_max(float value, int rank, int size, float (&of_peers)[kMaxPieces]) {
  const int thread = static_cast<int>(threadIdx.x);
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");  // all CTAs have started
  if (thread < size) *cooperative_groups::this_cluster().map_shared_rank(&of_peers[rank], thread) = value;
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  return max_of_lanes(thread % 32 < size ? of_peers[thread % 32] : 0.0f);
}

template <RowKind kKind, int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) silu_and_mul(const Arguments a) {
  __shared__ float maxima[32];
  __shared__ float of_peers[kMaxPieces];
  const RowFormat format = format_of<kKind>(a.out);
  const bool in_cluster = wants_amax(format) && a.pieces > 1;
  const int piece = static_cast<int>(blockIdx.x) % a.pieces;
  const int64_t row = static_cast<int>(blockIdx.x) / a.pieces;
  const int first = piece * a.piece_columns;
  if (in_cluster) arrive_at_start();
  const bool has_experts = a.experts.offsets != nullptr;
  if (!has_experts) start_next();
  wait_for_previous();
  if (has_experts) start_next();
  RowOutput out = a.out;
  if (has_experts) {
    if (row >= a.experts.num_rows()) return;  // all CTAs of the row
    if (a.scale_per_expert) out.scale += a.experts.expert_of(static_cast<int>(row));
  }
  const bool f32 = kKind == RowKind::kAny && a.x.f32;
  float y[kVectors][kVector] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column >= a.piece_columns) continue;
    float gate[kVector];
    float up[kVector];
    load_elements(a.x.data, f32, row * a.x.stride + first + column, gate);
    load_elements(a.x.data, f32, row * a.x.stride + a.columns + first + column, up);
#pragma unroll
    for (int k = 0; k < kVector; ++k) y[i][k] = silu(gate[k]) * up[k];
  }
  float amax = 0.0f;
  if (wants_amax(format)) amax = row_max(largest_magnitude(y, format), maxima);
  if (in_cluster) amax = cluster_max(amax, piece, a.pieces, of_peers);
  const float scale = output_scale(out, format, row, amax, threadIdx.x == 0 && piece == 0);
  write_row(out, format, row, first, a.piece_columns, scale, y);
}

void run_rows(std::string_view name, const SiluAndMulOp& op, const ExpertRows& experts, const Launch& launch) {
  const int64_t num_rows = op.x.dim(0);
  const int64_t columns = op.out.data.dim(1);
  if (num_rows == 0 || columns == 0) return;
  const int pieces = pieces_of(op, launch);
  const Arguments arguments{.x = row_input(op.x),
                            .out = row_output(op.out),
                            .experts = experts,
                            .scale_per_expert = op.out.format.granularity == Granularity::kTensor,
                            .columns = static_cast<int>(columns),
                            .piece_columns = static_cast<int>(columns / pieces),
                            .pieces = pieces};
  const RowShape row = shape_of(op, columns / pieces);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_rows * pieces)),
                          .block = dim3(static_cast<unsigned>(row.threads)),
                          .cluster = wants_amax(arguments.out.format) ? pieces : 1};
  const RowKind kind = row_kind(!arguments.x.f32, row, arguments.out);
  dispatch_row(kind, row, [&]<RowKind kKind, int kVector, int kVectors>() {
    launch_kernel(name, launch, shape, silu_and_mul<kKind, kVector, kVectors>, arguments);
  });
}

void run(const SiluAndMulOp& op, const Launch& launch) { run_rows("cuda.silu_and_mul", op, {}, launch); }

SiluAndMulOp all_rows(const ExpertSiluAndMulOp& op) { return {.out = op.out, .x = op.x}; }
std::string declines_experts(const ExpertSiluAndMulOp& op, const Launch& launch) {
  return declines(all_rows(op), launch);
}
void run_experts(const ExpertSiluAndMulOp& op, const Launch& launch) {
  if (op.plan.num_experts() > 0) run_rows("cuda.expert_silu_and_mul", all_rows(op), expert_rows(op.plan), launch);
}

}  // namespace

Kernel<SiluAndMulOp> cuda_silu_and_mul() { return {.name = "cuda.silu_and_mul", .declines = declines, .run = run}; }
Kernel<ExpertSiluAndMulOp> cuda_expert_silu_and_mul() {
  return {.name = "cuda.expert_silu_and_mul", .declines = declines_experts, .run = run_experts};
}

}  // namespace octet
