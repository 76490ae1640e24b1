// Random matrices made on the GPU, and what a matmul of them must give, in double sums.
#pragma once

#include "octet/device/buffer.h"
#include "octet/device/stream.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"
#include "octet/ops/matmul.h"
#include "octet/tensor/dispatch.h"

namespace octet::bench {

__device__ inline uint64_t hash(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

__device__ inline float normal(uint64_t seed) {
  const uint64_t bits = hash(seed);
  const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
  const float v = static_cast<float>(bits & 0xffffff) * 0x1p-24f;
  return sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
}

__device__ inline void store(float* out, float value) { *out = value; }
__device__ inline void store(BF16* out, float value) { *out = device_bf16(value); }
__device__ inline void store(F16* out, float value) { out->bits = __half_as_ushort(__float2half_rn(value)); }
__device__ inline void store(F8E4M3* out, float value) {
  out->bits = static_cast<uint8_t>(pack_e4m3({value, 0.0f}) & 0xff);
}

__device__ inline void store(int8_t* out, float value) {
  *out = static_cast<int8_t>(min(max(__float2int_rn(value), -128), 127));
}

// Normal values of deviation `scale`, or with `positive` values of [scale, 2 scale).
template <class T>
__global__ void fill_kernel(T* out, int64_t count, uint64_t seed, float scale, bool positive) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    const uint64_t place = hash(seed) + static_cast<uint64_t>(i);
    store(out + i,
          positive ? scale * (1.0f + static_cast<float>(hash(place) >> 40) * 0x1p-24f) : scale * normal(place));
  }
}

inline void fill_random(std::byte* bytes, DType dtype, int64_t count, uint64_t seed, float scale,
                        bool positive = false) {
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI8>(dtype, [&]<DType D>() {
    fill_kernel<<<1024, 256>>>(reinterpret_cast<CType<D>*>(bytes), count, seed, scale, positive);
  });
  check_cuda(cudaDeviceSynchronize(), "fill_random");
}

// The deviation that fills a type's range as quantisation does: E4M3's largest is 448, of values within 4 deviations.
inline float natural_scale(DType dtype) {
  if (dtype == DType::kI8) return 30.0f;
  return dtype == DType::kF8E4M3 ? 100.0f : 1.0f;
}

// A matrix's scales: one per `rows` rows and `columns` columns; 0: one for all of them.
struct ExpectedScales {
  const float* data = nullptr;  // null: none
  int64_t rows = 0, columns = 0, stride = 1;

  explicit ExpectedScales(const ConstQuantTensor& matrix) {
    if (!matrix.format.quantized()) return;
    data = matrix.scale.data<float>();
    if (matrix.format.granularity == Granularity::kTensor) return;
    rows = std::max(matrix.format.group_rows, 1);
    columns = matrix.format.group_cols;
    if (columns > 0) stride = matrix.scale.dim(1);
  }
  __device__ double of(int64_t row, int64_t column) const {
    if (data == nullptr) return 1.0;
    return data[(rows == 0 ? 0 : row / rows * stride) + (columns == 0 ? 0 : column / columns)];
  }
};

// A warp for each output: expected [T, N] in F32 from double sums.
template <class X, class W>
__global__ void expected_kernel(float* expected, const X* x, int64_t x_stride, ExpectedScales x_scale, const W* weight,
                                ExpectedScales weight_scale, const float* bias, int64_t num_tokens,
                                int64_t num_channels, int64_t k) {
  const int64_t output = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (output >= num_tokens * num_channels) return;
  const int64_t token = output / num_channels;
  const int64_t channel = output % num_channels;
  double sum = 0.0;
  for (int64_t i = threadIdx.x % 32; i < k; i += 32) {
    sum += static_cast<double>(device_f32(x[token * x_stride + i])) * x_scale.of(token, i) *
           static_cast<double>(device_f32(weight[channel * k + i])) * weight_scale.of(channel, i);
  }
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (bias != nullptr) sum += static_cast<double>(bias[channel]);
  if (threadIdx.x % 32 == 0) expected[output] = static_cast<float>(sum);
}

inline void compute_expected(float* expected, const MatmulOp& op) {
  const int64_t outputs = op.out.num_elements();
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kI8>(op.x.data.dtype, [&]<DType X>() {
    dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI8>(op.weight.data.dtype, [&]<DType W>() {
      expected_kernel<<<static_cast<unsigned>((outputs + 7) / 8), 256>>>(
          expected, op.x.data.data<CType<X>>(), op.x.data.row_stride, ExpectedScales(op.x),
          op.weight.data.data<CType<W>>(), ExpectedScales(op.weight), op.bias ? op.bias.data<float>() : nullptr,
          op.out.dim(0), op.out.dim(1), op.x.data.dim(1));
    });
  });
  check_cuda(cudaDeviceSynchronize(), "compute_expected");
}

}  // namespace octet::bench
