// cuda.latent_kv: octet/ops/latent_kv.h in one kernel. CTA 0 of a token makes its cell of the cache, the others rotate
// the queries, of four heads a warp.
#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kWarpHeads = 4;

struct Arguments {
  const void* q;
  const void* kv;
  void* q_out;
  void* cache;
  const float* norm;
  const float* cos;
  const float* sin;
  const int32_t* slot_mapping;
  int64_t q_stride, kv_stride, q_out_stride, block_stride, cos_stride, sin_stride;
  int num_heads, query_dim, latent, half, block_size;
  float norm_epsilon, scale;
  bool neighbours;
};

std::string declines(const LatentKvOp&, const Launch&) { return ""; }

// Pair i of `from`, rotated, to elements i and half + i of what `store` takes.
template <class T, class Store>
__device__ void rotate_pair(const Arguments& a, int64_t t, const T* from, int i, Store&& store) {
  const float first = device_f32(from[a.neighbours ? 2 * i : i]);
  const float second = device_f32(from[a.neighbours ? 2 * i + 1 : i + a.half]);
  const float cos = a.cos[t * a.cos_stride + i], sin = a.sin[t * a.sin_stride + i];
  store(i, first * cos - second * sin);
  store(a.half + i, second * cos + first * sin);
}

template <class T, class Cache>
__device__ void write_cell(const Arguments& a, int64_t t) {
  __shared__ float of_warps[32];
  const int slot = a.slot_mapping[t];
  if (slot < 0) return;
  const T* kv = static_cast<const T*>(a.kv) + t * a.kv_stride;
  const int thread = static_cast<int>(threadIdx.x);
  float squares = 0.0f;
  for (int i = thread; i < a.latent; i += kThreads) squares = fmaf(device_f32(kv[i]), device_f32(kv[i]), squares);
  squares = sum_of_lanes(squares);
  if (thread % 32 == 0) of_warps[thread / 32] = squares;
  __syncthreads();
  squares = 0.0f;
  for (int w = 0; w < kWarps; ++w) squares += of_warps[w];
  const float factor = 1.0f / sqrtf(squares / static_cast<float>(a.latent) + a.norm_epsilon);
  const float inverse = 1.0f / a.scale;
  Cache* cell = static_cast<Cache*>(a.cache) + slot / a.block_size * a.block_stride +
                int64_t{slot % a.block_size} * (a.latent + 2 * a.half);
  const auto store = [&](int i, float value) { cell[i] = device_from_f32<Cache>(divided(value, a.scale, inverse)); };
  for (int i = thread; i < a.latent; i += kThreads) store(i, device_f32(kv[i]) * factor * a.norm[i]);
  for (int i = thread; i < a.half; i += kThreads) {
    rotate_pair(a, t, kv + a.latent, i, [&](int j, float value) { store(a.latent + j, value); });
  }
}

// Of heads `first` and the kWarpHeads - 1 behind it, by one warp.
template <class T>
__device__ void rotate_queries(const Arguments& a, int64_t t, int first) {
  const int rotated = 2 * a.half, cached = a.latent + rotated;
  const T* q = static_cast<const T*>(a.q) + t * a.q_stride + a.query_dim - rotated;
  T* to = static_cast<T*>(a.q_out) + t * a.q_out_stride + a.latent;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < a.half; i += 32) {
#pragma unroll
    for (int k = 0; k < kWarpHeads; ++k) {
      const int head = first + k;
      if (head >= a.num_heads) break;
      rotate_pair(a, t, q + int64_t{head} * a.query_dim, i,
                  [&](int j, float value) { to[int64_t{head} * cached + j] = device_from_f32<T>(value); });
    }
  }
}

template <class T, class Cache>
__global__ void __launch_bounds__(kThreads, 4) latent_kv(const Arguments a) {
  const int64_t t = blockIdx.x;
  start_next();
  wait_for_previous();
  if (blockIdx.y == 0) return write_cell<T, Cache>(a, t);
  rotate_queries<T>(a, t, static_cast<int>((blockIdx.y - 1) * kWarps + threadIdx.x / 32) * kWarpHeads);
}

void run(const LatentKvOp& op, const Launch& launch) {
  const int64_t tokens = op.kv.dim(0), heads = op.num_heads();
  if (tokens == 0) return;
  const Arguments arguments{.q = op.q.bytes,
                            .kv = op.kv.bytes,
                            .q_out = op.q_out.bytes,
                            .cache = op.cache.bytes,
                            .norm = op.norm.data<float>(),
                            .cos = op.cos.data<float>(),
                            .sin = op.sin.data<float>(),
                            .slot_mapping = op.slot_mapping.data<int32_t>(),
                            .q_stride = op.q.row_stride,
                            .kv_stride = op.kv.row_stride,
                            .q_out_stride = op.q_out.row_stride,
                            .block_stride = op.cache.row_stride,
                            .cos_stride = op.cos.row_stride,
                            .sin_stride = op.sin.row_stride,
                            .num_heads = static_cast<int>(heads),
                            .query_dim = static_cast<int>(op.query_dim()),
                            .latent = static_cast<int>(op.latent_dim()),
                            .half = static_cast<int>(op.cos.dim(1)),
                            .block_size = static_cast<int>(op.block_size()),
                            .norm_epsilon = op.norm_epsilon,
                            .scale = op.scale,
                            .neighbours = op.pairs == LatentKvOp::Pairs::kNeighbours};
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(tokens),
                   static_cast<unsigned>(1 + (heads + kWarps * kWarpHeads - 1) / (kWarps * kWarpHeads))),
      .block = dim3(kThreads)};
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2>(op.cache.dtype, [&]<DType kCache>() {
    dispatch<DType::kF32, DType::kBF16>(op.kv.dtype, [&]<DType kActivation>() {
      launch_kernel("cuda.latent_kv", launch, shape, latent_kv<CType<kActivation>, CType<kCache>>, arguments);
    });
  });
}

}  // namespace

Kernel<LatentKvOp> cuda_latent_kv() { return {.name = "cuda.latent_kv", .declines = declines, .run = run}; }

}  // namespace octet
