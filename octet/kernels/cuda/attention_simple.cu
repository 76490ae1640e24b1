// cuda.attention_simple: paged attention of every kind that the contract has (octet/ops/paged_attention.h), in F32
// arithmetic. What faster rows decline ends here; it is written to be right.
//
// A cluster of CTAs makes one row of `out`, each CTA an equal share of its query heads, one head after the other. The
// keys are cut into tiles of 32 at fixed positions; warp w takes tiles w, w + 8, ... with a softmax of its own; lane i
// holds the score of the tile's key i. At the end the warps' results are added in their order. Everything is counted
// from position 0, so a row's bits do not depend on how many rows the batch or the sequence has. Cells that no query
// sees are not read.
#include "octet/kernels/cuda/attention_row.cuh"
#include "octet/kernels/cuda/kernels.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTileKeys = 32;
constexpr int kMaxHeadDim = 576;  // latent attention's
constexpr int kMaxValueDim = 512;
constexpr int kLaneElements = kMaxValueDim / 32;
constexpr int64_t kMaxRowBytes = 32 << 10;

// Elements of a key that are read at once: 8 where heads and blocks allow it, else 4; 0: not even those.
int vector_of(const PagedAttentionOp& op) {
  for (const int vector : {8, 4}) {
    if (op.head_dim() % vector == 0 && op.k_cache.row_stride % vector == 0 && op.v_cache.row_stride % vector == 0) {
      return vector;
    }
  }
  return 0;
}

// Of the heads of one CTA.
int64_t row_part_bytes(const PagedAttentionOp& op) {
  return op.num_heads() / row_cluster(op.num_heads()) * op.value_dim() * int64_t{sizeof(float)};
}

std::string declines(const PagedAttentionOp& op, const Launch& launch) {
  const int64_t d = op.head_dim();
  if (vector_of(op) == 0 || d > kMaxHeadDim) {
    return fmt::format(
        "takes a head_dim up to {} that is a multiple of 4, as blocks' distances are, not {} with {} and {}",
        kMaxHeadDim, d, op.k_cache.row_stride, op.v_cache.row_stride);
  }
  if (op.value_dim() > kMaxValueDim) {
    return fmt::format("takes values of at most {} elements, not {}", kMaxValueDim, op.value_dim());
  }
  if (row_part_bytes(op) > kMaxRowBytes) {
    return fmt::format("keeps a CTA's part of a row in 32 KiB, {} heads of {} need {}", op.num_heads(), op.value_dim(),
                       row_part_bytes(op));
  }
  return declines_quantized(op, launch);
}

// kVector elements, aligned to their size.
template <class T, int kVector>
struct alignas(sizeof(T) * kVector > 16 ? 16 : sizeof(T) * kVector) Vector {
  T elements[kVector];
};

// The running softmax of one warp: weights relative to exp(highest), their sum (each lane its own part), and the
// weighted sum of values (element lane + 32 i in of_lane[i]).
struct Softmax {
  float highest = -INFINITY;
  float total = 0.0f;
  float of_lane[kLaneElements] = {};
};

struct Keys {
  int sequence, kv_head, begin, end;  // the positions that the query sees
};

template <int kVector, class T>
__device__ float dot(const float* q, const T* key, int head_dim) {
  float sums[8] = {};
  for (int d = 0; d < head_dim; d += kVector) {
    const auto part = *reinterpret_cast<const Vector<T, kVector>*>(key + d);
    for (int i = 0; i < kVector; ++i) sums[i] = fmaf(q[d + i], device_f32(part.elements[i]), sums[i]);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <class T, int kVector>
__device__ void attend_tile(const AttentionInput& in, const Keys& keys, int tile, const float* q, Softmax& softmax) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int position = tile * kTileKeys + lane;
  const bool visible = keys.begin <= position && position < keys.end;
  int block = 0;
  float score = -INFINITY;
  if (visible) {
    block = in.block_table[keys.sequence * in.table_stride + position / in.block_size];
    const int64_t cell = int64_t{keys.kv_head} * in.block_size + position % in.block_size;
    score = dot<kVector>(q, static_cast<const T*>(in.k_cache) + block * in.k_block_stride + cell * in.head_dim,
                         in.head_dim) *
            in.score_scale;
  }
  float highest = fmaxf(softmax.highest, score);
  for (int step = 16; step > 0; step /= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, step));
  const float correction = expf(softmax.highest - highest);
  const float weight = visible ? expf(score - highest) : 0.0f;
  softmax.highest = highest;
  softmax.total = softmax.total * correction + weight;
  for (float& sum : softmax.of_lane) sum *= correction;
  const int first = max(keys.begin - tile * kTileKeys, 0);
  const int last = min(keys.end - tile * kTileKeys, kTileKeys);
  for (int k = first; k < last; ++k) {
    const float of_key = __shfl_sync(0xffffffffu, weight, k);
    const int64_t cell = int64_t{keys.kv_head} * in.block_size + (tile * kTileKeys + k) % in.block_size;
    const T* value =
        static_cast<const T*>(in.v_cache) + __shfl_sync(0xffffffffu, block, k) * in.v_block_stride + cell * in.head_dim;
    for (int i = 0; i < kLaneElements; ++i) {
      const int d = lane + 32 * i;
      if (d < in.value_dim) softmax.of_lane[i] = fmaf(of_key, device_f32(value[d]), softmax.of_lane[i]);
    }
  }
}

struct SharedState {
  float q[kMaxHeadDim];
  float highest[kWarps];
  float total[kWarps];
  float sums[kWarps][kMaxValueDim];
  int sequence;
};

// The warps' results of one head, added in their order, into out [value_dim].
__device__ void merge_warps(const AttentionInput& in, const Softmax& softmax, SharedState& shared, float* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  float total = softmax.total;
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  if (lane == 0) {
    shared.highest[warp] = softmax.highest;
    shared.total[warp] = total;
  }
  for (int i = 0; i < kLaneElements; ++i) shared.sums[warp][lane + 32 * i] = softmax.of_lane[i];
  __syncthreads();
  for (int d = static_cast<int>(threadIdx.x); d < in.value_dim; d += kThreads) {
    float highest = -INFINITY;
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, shared.highest[w]);
    float sum = 0.0f;
    float sum_of_weights = 0.0f;
    for (int w = 0; w < kWarps; ++w) {
      const float correction = expf(shared.highest[w] - highest);
      sum_of_weights += shared.total[w] * correction;
      sum += shared.sums[w][d] * correction;
    }
    out[d] = sum / sum_of_weights * in.v_scale;
  }
  __syncthreads();
}

template <class T, int kVector>
__global__ void __launch_bounds__(kThreads, 2) attention_simple(const AttentionInput in, const AttentionOutput output) {
  extern __shared__ float row_part[];  // the CTA's heads of the row
  __shared__ SharedState shared;
  const auto cluster = cooperative_groups::this_cluster();
  const int num_ranks = static_cast<int>(cluster.num_blocks());
  const int t = static_cast<int>(blockIdx.x) / num_ranks;
  const int heads = in.num_heads / num_ranks;
  const int first_head = static_cast<int>(cluster.block_rank()) * heads;
  wait_for_previous();
  start_next();
  const int s = sequence_of_row(in, t, &shared.sequence);
  if (s < 0) return;
  const int position = in.seq_lens[s] - in.query_start[s + 1] + t;
  Keys keys{.sequence = s, .kv_head = 0, .begin = 0, .end = position + 1};
  if (in.sliding_window > 0) keys.begin = max(0, position - in.sliding_window + 1);
  for (int h = 0; h < heads; ++h) {
    keys.kv_head = (first_head + h) / (in.group);
    const int64_t q_first = t * in.q_stride + int64_t{first_head + h} * in.head_dim;
    for (int d = static_cast<int>(threadIdx.x); d < in.head_dim; d += kThreads) {
      shared.q[d] = in.q_f32 ? static_cast<const float*>(in.q)[q_first + d]
                             : device_f32(static_cast<const BF16*>(in.q)[q_first + d]);
    }
    __syncthreads();
    Softmax softmax;
    const int first_tile = keys.begin / kTileKeys;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    int tile = first_tile + (warp + kWarps - first_tile % kWarps) % kWarps;
    for (; tile * kTileKeys < keys.end; tile += kWarps) attend_tile<T, kVector>(in, keys, tile, shared.q, softmax);
    merge_warps(in, softmax, shared, row_part + h * in.value_dim);
  }
  write_row_part(output, t, first_head * in.value_dim, heads * in.value_dim, row_part);
}

void run_rows(const PagedAttentionOp& op, const Launch& launch) {
  const int cluster = row_cluster(op.num_heads());
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(op.q.dim(0) * cluster)),
                          .block = dim3(kThreads),
                          .shared_bytes = row_part_bytes(op),
                          .cluster = cluster};
  if (op.q.dim(0) == 0) return;
  dispatch<DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2>(op.k_cache.dtype, [&]<DType kCache>() {
    using T = CType<kCache>;
    auto* kernel = vector_of(op) == 8 ? attention_simple<T, 8> : attention_simple<T, 4>;
    allow_shared_bytes(kernel, kMaxRowBytes);
    launch_kernel("cuda.attention_simple", launch, shape, kernel, attention_input(op), attention_output(op));
  });
}

void run(const PagedAttentionOp& op, const Launch& launch) {
  run_quantized(op, launch, [&](const PagedAttentionOp& plain) { run_rows(plain, launch); });
}

}  // namespace

Kernel<PagedAttentionOp> cuda_attention_simple() {
  return {.name = "cuda.attention_simple", .declines = declines, .run = run};
}

}  // namespace octet
