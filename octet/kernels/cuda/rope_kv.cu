// cuda.rope_kv: octet/ops/rope_kv.h in one kernel: a group of lanes of one warp takes one head of one token, from the
// fused projection to q_out or the cache.
//
// A lane holds two vectors of kVector elements: for the rotated part [0, R) vectors i and R/2 + i, which rotate into
// each other; beyond it two neighbours. Lanes of a group: the power of two from D / (2 kVector) on, at most a warp.
#include <bit>

#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/rows.cuh"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 32;

struct Arguments {
  const void* qkv;
  void* q_out;
  void* k_cache;
  void* v_cache;
  const float* cos;
  const float* sin;
  const int32_t* slot_mapping;
  const float* q_norm;  // null: none
  const float* k_norm;
  int64_t qkv_stride, q_out_stride, k_block_stride, v_block_stride, cos_stride, sin_stride;
  int num_heads, num_kv_heads, head_dim, half, block_size;
  int log_group;  // lanes of a head
  float norm_epsilon, k_scale, v_scale;
};

// Whether every row starts where vectors may.
bool is_aligned(const ConstTensor& x, int vector) {
  const int64_t access = std::min<int64_t>(16, vector * dtype_bytes(x.dtype));
  return reinterpret_cast<uintptr_t>(x.bytes) % static_cast<uintptr_t>(access) == 0 &&
         x.row_stride * dtype_bytes(x.dtype) % access == 0;
}

// Elements of the largest vector that cuts a head's parts and meets all rows' alignment; 0: none.
int vector_of(const RopeKvOp& op) {
  const int64_t half = op.cos.dim(1);
  for (const int vector : {8, 4, 2}) {
    const std::initializer_list<ConstTensor> tensors = {op.qkv, op.q_out, op.k_cache, op.v_cache, op.cos, op.sin};
    if (half % vector == 0 && op.head_dim() % vector == 0 &&
        std::all_of(tensors.begin(), tensors.end(), [&](const ConstTensor& x) { return is_aligned(x, vector); })) {
      return vector;
    }
  }
  return 0;
}

// Pairs of vectors of a head.
int64_t pairs_of(const RopeKvOp& op, int vector) {
  const int64_t half = op.cos.dim(1);
  return half / vector + ((op.head_dim() - 2 * half) / vector + 1) / 2;
}

std::string declines(const RopeKvOp& op, const Launch&) {
  if (op.k_head_scale) return "takes one scale of keys and one of values, not one for each head";
  const int vector = vector_of(op);
  if (vector == 0) return "takes head and rotated dimensions that are multiples of 2 elements, in rows aligned to 2";
  if (pairs_of(op, vector) > kLanes) {
    return fmt::format("takes heads of at most {} elements, not of {}", 2 * kLanes * vector, op.head_dim());
  }
  return "";
}

// Where a lane's two vectors lie in a head, and which there are.
struct Place {
  int first, second;
  bool rotated, has_first, has_second;
};
template <int kVector>
__device__ Place place_of(const Arguments& a, int lane, bool has_head) {
  const int pair = lane * kVector;
  if (pair < a.half) return {pair, a.half + pair, has_head, has_head, has_head};
  const int first = 2 * a.half + 2 * (pair - a.half);
  return {first, first + kVector, false, has_head && first < a.head_dim, has_head && first + kVector < a.head_dim};
}

template <int kVector>
struct Pair {
  float first[kVector] = {};
  float second[kVector] = {};
};

// RMSNorm over the group's head. All lanes of the warp call it.
template <int kVector>
__device__ void normalize(const Arguments& a, const Place& place, const float* weight, Pair<kVector>& x) {
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < kVector; ++k) squares = fmaf(x.first[k], x.first[k], fmaf(x.second[k], x.second[k], squares));
  for (int step = (1 << a.log_group) / 2; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
  if (weight == nullptr) return;
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(a.head_dim) + a.norm_epsilon);
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    if (place.has_first) x.first[k] *= inverse * weight[place.first + k];
    if (place.has_second) x.second[k] *= inverse * weight[place.second + k];
  }
}

template <int kVector>
__device__ void rotate(const float (&cos)[kVector], const float (&sin)[kVector], Pair<kVector>& x) {
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    const float first = x.first[k];
    const float second = x.second[k];
    x.first[k] = first * cos[k] - second * sin[k];
    x.second[k] = second * cos[k] + first * sin[k];
  }
}

template <class Cache, int kVector>
__device__ void write_cache(Cache* head, const Place& place, float scale, Pair<kVector>& x) {
  const float inverse = 1.0f / scale;
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    x.first[k] = divided(x.first[k], scale, inverse);
    x.second[k] = divided(x.second[k], scale, inverse);
  }
  if (place.has_first) store_f32(head + place.first, x.first);
  if (place.has_second) store_f32(head + place.second, x.second);
}

template <class T, class Cache, int kVector>
__global__ void __launch_bounds__(kThreads, 8) rope_kv(const Arguments a) {
  const int thread = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  const int64_t t = blockIdx.x;
  const int head = thread >> a.log_group;
  const bool is_query = head < a.num_heads;
  const bool is_key = !is_query && head < a.num_heads + a.num_kv_heads;
  // Lanes without a head go along: the norm's sum is the warp's.
  const bool has_head = head < a.num_heads + 2 * a.num_kv_heads;
  const Place place = place_of<kVector>(a, thread & ((1 << a.log_group) - 1), has_head);
  start_next();
  wait_for_previous();

  const int slot = a.slot_mapping[t];
  const T* qkv = static_cast<const T*>(a.qkv) + t * a.qkv_stride + int64_t{head} * a.head_dim;
  Pair<kVector> x;
  if (place.has_first) load_f32(qkv + place.first, x.first);
  if (place.has_second) load_f32(qkv + place.second, x.second);
  const bool rotated = place.rotated && (is_query || is_key);
  float cos[kVector];
  float sin[kVector];
  if (rotated) {
    load_f32(a.cos + t * a.cos_stride + place.first, cos);
    load_f32(a.sin + t * a.sin_stride + place.first, sin);
  }
  if (a.q_norm != nullptr || a.k_norm != nullptr) {
    normalize(a, place, is_query ? a.q_norm : is_key ? a.k_norm : nullptr, x);
  }
  if (rotated) rotate(cos, sin, x);
  if (is_query) {
    T* q_out = static_cast<T*>(a.q_out) + t * a.q_out_stride + int64_t{head} * a.head_dim;
    if (place.has_first) store_f32(q_out + place.first, x.first);
    if (place.has_second) store_f32(q_out + place.second, x.second);
    return;
  }
  if (slot < 0 || !has_head) return;
  const int kv_head = head - a.num_heads - (is_key ? 0 : a.num_kv_heads);
  const int block = slot / a.block_size;
  const int64_t row = int64_t{kv_head} * a.block_size + (slot - block * a.block_size);
  auto* cache = static_cast<Cache*>(is_key ? a.k_cache : a.v_cache) +
                block * (is_key ? a.k_block_stride : a.v_block_stride) + row * a.head_dim;
  write_cache(cache, place, is_key ? a.k_scale : a.v_scale, x);
}

const float* floats(const ConstTensor& tensor) { return tensor ? tensor.data<float>() : nullptr; }

void run(const RopeKvOp& op, const Launch& launch) {
  const int vector = vector_of(op);
  const int64_t num_heads = op.num_heads() + 2 * op.num_kv_heads();
  const int log_group = std::bit_width(static_cast<uint64_t>(pairs_of(op, vector) - 1));
  const Arguments arguments{.qkv = op.qkv.bytes,
                            .q_out = op.q_out.bytes,
                            .k_cache = op.k_cache.bytes,
                            .v_cache = op.v_cache.bytes,
                            .cos = op.cos.data<float>(),
                            .sin = op.sin.data<float>(),
                            .slot_mapping = op.slot_mapping.data<int32_t>(),
                            .q_norm = floats(op.q_norm),
                            .k_norm = floats(op.k_norm),
                            .qkv_stride = op.qkv.row_stride,
                            .q_out_stride = op.q_out.row_stride,
                            .k_block_stride = op.k_cache.row_stride,
                            .v_block_stride = op.v_cache.row_stride,
                            .cos_stride = op.cos.row_stride,
                            .sin_stride = op.sin.row_stride,
                            .num_heads = static_cast<int>(op.num_heads()),
                            .num_kv_heads = static_cast<int>(op.num_kv_heads()),
                            .head_dim = static_cast<int>(op.head_dim()),
                            .half = static_cast<int>(op.cos.dim(1)),
                            .block_size = static_cast<int>(op.block_size()),
                            .log_group = log_group,
                            .norm_epsilon = op.norm_epsilon,
                            .k_scale = op.k_scale,
                            .v_scale = op.v_scale};
  if (op.qkv.dim(0) == 0) return;
  const int64_t ctas = ((num_heads << log_group) + kThreads - 1) / kThreads;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(op.qkv.dim(0)), static_cast<unsigned>(ctas)),
                          .block = dim3(kThreads)};
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2>(op.k_cache.dtype, [&]<DType kCache>() {
    dispatch<DType::kF32, DType::kBF16>(op.qkv.dtype, [&]<DType kActivation>() {
      using T = CType<kActivation>;
      using Cache = CType<kCache>;
      auto* kernel = vector == 8 ? rope_kv<T, Cache, 8> : vector == 4 ? rope_kv<T, Cache, 4> : rope_kv<T, Cache, 2>;
      launch_kernel("cuda.rope_kv", launch, shape, kernel, arguments);
    });
  });
}

}  // namespace

Kernel<RopeKvOp> cuda_rope_kv() { return {.name = "cuda.rope_kv", .declines = declines, .run = run}; }

}  // namespace octet
