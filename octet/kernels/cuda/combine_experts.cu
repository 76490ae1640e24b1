// cuda.combine_experts: octet/ops/combine_experts.h. A thread has a vector of a token's columns and adds the slots in
// their order, so a token's bits do not depend on the others.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"

namespace octet {
namespace {

constexpr int kThreads = 128;
constexpr int kAtOnce = 4;  // slots whose rows are asked for together

struct Arguments {
  RowInput y, shared;
  RowInput out;
  const float* shared_gate;  // null: none
  int64_t gate_stride;
  const float* weights;
  int64_t weight_stride;
  const int32_t* rows;
  int num_slots;
  int columns;
};

template <int kVector>
__global__ void __launch_bounds__(kThreads) combine_experts(const Arguments a) {
  const int64_t t = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kVector;
  start_next();
  wait_for_previous();
  if (column >= a.columns) return;
  float sum[kVector] = {};
  if (a.shared.data != nullptr) {
    load_elements(a.shared.data, a.shared.f32, t * a.shared.stride + column, sum);
    const float gate = a.shared_gate != nullptr ? 1.0f / (1.0f + expf(-a.shared_gate[t * a.gate_stride])) : 1.0f;
#pragma unroll
    for (float& value : sum) value *= gate;
  }
  for (int first = 0; first < a.num_slots; first += kAtOnce) {
    int rows[kAtOnce];
    float weights[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool inside = first + i < a.num_slots;
      rows[i] = inside ? a.rows[t * a.num_slots + first + i] : -1;
      weights[i] = inside ? a.weights[t * a.weight_stride + first + i] : 0.0f;
    }
    float y[kAtOnce][kVector];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (rows[i] >= 0) load_elements(a.y.data, a.y.f32, rows[i] * a.y.stride + column, y[i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] = rows[i] >= 0 ? fmaf(weights[i], y[i][k], sum[k]) : sum[k];
    }
  }
  store_elements(const_cast<void*>(a.out.data), a.out.f32, t * a.out.stride + column, sum);
}

std::string declines(const CombineExpertsOp&, const Launch&) { return ""; }

void run(const CombineExpertsOp& op, const Launch& launch) {
  const int64_t tokens = op.out.dim(0);
  const int64_t columns = op.out.dim(1);
  if (tokens == 0 || columns == 0) return;
  const Arguments arguments{.y = row_input(op.y),
                            .shared = op.shared ? row_input(op.shared) : RowInput{},
                            .out = row_input(op.out),
                            .shared_gate = op.shared_gate ? op.shared_gate.data<float>() : nullptr,
                            .gate_stride = op.shared_gate ? op.shared_gate.row_stride : 0,
                            .weights = op.weights.data<float>(),
                            .weight_stride = op.weights.row_stride,
                            .rows = op.rows.data<int32_t>(),
                            .num_slots = static_cast<int>(op.rows.dim(1)),
                            .columns = static_cast<int>(columns)};
  const bool aligned = has_aligned_rows(columns, {op.out, op.y, op.shared});
  const int64_t vectors = aligned ? columns / 8 : columns;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(tokens), static_cast<unsigned>((vectors + kThreads - 1) / kThreads)),
      .block = dim3(kThreads)};
  launch_kernel("cuda.combine_experts", launch, shape, aligned ? combine_experts<8> : combine_experts<1>, arguments);
}

}  // namespace

Kernel<CombineExpertsOp> cuda_combine_experts() {
  return {.name = "cuda.combine_experts", .declines = declines, .run = run};
}

}  // namespace octet
