// cuda.rope_table: octet/ops/rope_table.h, one thread an angle. The angle is an F32 product rounded once, as the
// contract says; dynamic NTK's frequencies come from a power in F64, since at position 131071 the last bit of one moves
// the angle by 2^-7.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"

namespace octet {
namespace {

constexpr int kThreads = 64;

struct Arguments {
  float* cos;
  float* sin;
  const int32_t* positions;
  const float* inv_freq;
  int64_t cos_stride, sin_stride;
  int half;
  int64_t num_angles;
  float attention_factor;
  float ntk_factor;
  int64_t ntk_original_max;
};

std::string declines(const RopeTableOp&, const Launch&) { return ""; }

template <bool kNtk>
__device__ float frequency(const Arguments& a, int32_t position, int i) {
  const float frequency = a.inv_freq[i];
  if constexpr (kNtk) {
    if (position >= a.ntk_original_max && i > 0) {
      const double factor = a.ntk_factor;
      const double growth = factor * (position + 1.0) / static_cast<double>(a.ntk_original_max) - (factor - 1.0);
      return static_cast<float>(frequency * pow(growth, -2.0 * i / (2.0 * a.half - 2.0)));
    }
  }
  return frequency;
}

template <bool kNtk>
__global__ void __launch_bounds__(kThreads) rope_table(const Arguments a) {
  const int64_t angle = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  start_next();
  wait_for_previous();
  if (angle >= a.num_angles) return;
  const int64_t t = angle / a.half;
  const int i = static_cast<int>(angle % a.half);
  const int32_t position = a.positions[t];
  float sin = 0.0f;
  float cos = 0.0f;
  // Not the fast ones: angles reach the model's length.
  sincosf(__fmul_rn(static_cast<float>(position), frequency<kNtk>(a, position, i)), &sin, &cos);
  a.cos[t * a.cos_stride + i] = a.attention_factor * cos;
  a.sin[t * a.sin_stride + i] = a.attention_factor * sin;
}

void run(const RopeTableOp& op, const Launch& launch) {
  const Arguments arguments{.cos = op.cos.data<float>(),
                            .sin = op.sin.data<float>(),
                            .positions = op.positions.data<int32_t>(),
                            .inv_freq = op.inv_freq.data<float>(),
                            .cos_stride = op.cos.row_stride,
                            .sin_stride = op.sin.row_stride,
                            .half = static_cast<int>(op.inv_freq.dim(0)),
                            .num_angles = op.positions.dim(0) * op.inv_freq.dim(0),
                            .attention_factor = op.attention_factor,
                            .ntk_factor = op.ntk_factor,
                            .ntk_original_max = op.ntk_original_max};
  if (arguments.num_angles == 0) return;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((arguments.num_angles + kThreads - 1) / kThreads)),
                          .block = dim3(kThreads)};
  launch_kernel("cuda.rope_table", launch, shape, op.ntk_factor > 0.0f ? rope_table<true> : rope_table<false>,
                arguments);
}

}  // namespace

Kernel<RopeTableOp> cuda_rope_table() { return {.name = "cuda.rope_table", .declines = declines, .run = run}; }

}  // namespace octet
