// hopper.attention_latent: paged attention over a compressed cache (DeepSeek-AI 2024), whose one head of 576 elements
// is the key of all query heads and, in its first 512, their value. Tensor cores multiply 64 rows of (new tokens x
// heads) with every key that is fetched, once for both products: decode of many heads and prompts alike. FlashMLA
// (DeepSeek-AI 2025) is the measure.
//
// A CTA makes its stretch of the batch (latent_line.cuh). One warpgroup fetches (latent_producer.cuh). Two multiply
// with values, each for half of the columns; one of them, the leader, makes the scores and their weights, in shared
// memory for both. Behind its values of 64 keys it queues the scores of the next, so that the tile of the former is
// free early: there is room for two. With 8-bit caches all is f16: q is scaled per row by a power of two, weights are
// kept times 2^8 (attention_prefill.cu).
#include "octet/kernels/hopper/attention_row_end.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/latent_combine.cuh"
#include "octet/kernels/hopper/latent_consumer.cuh"

namespace octet {
namespace {

// One of the multiplying warpgroups over the whole stretch.
template <class S, class Role>
__device__ void consume(const AttentionInput& in, const AttentionOutput& output, const LatentPartials& partials,
                        const LatentStretch& stretch, LatentShared& shared) {
  if (threadIdx.x == kLatentProducers) partials.units[blockIdx.x] = kNoSplitUnit;
  int tile = 0;
  for (LatentCursor cursor(in, stretch); !cursor.done(); cursor.next()) {
    const LatentPiece piece = cursor.piece();
    sync_consumers();  // nobody needs the queries of before
    load_latent_queries<S>(in, piece, shared);
    fence_shared_for_wgmma();
    sync_consumers();
    Role role(in, piece, shared);
    role.run(tile);
    sync_consumers();  // the totals are there
    role.write(output, partials);
    if (threadIdx.x == kLatentProducers && piece.last_cta > static_cast<int>(blockIdx.x))
      partials.units[blockIdx.x] = {piece.sequence, piece.row_block, piece.first_cta, piece.last_cta};
  }
}

// All threads call it; the line lies where keys will come to.
__device__ LatentStretch find_stretch(const AttentionInput& in, LatentShared& shared) {
  static_assert(sizeof(LatentLine) <= sizeof(shared.keys));
  auto& line = *reinterpret_cast<LatentLine*>(shared.keys);
  line.make(in);
  const int length = line.length(in), ctas = static_cast<int>(gridDim.x), cta = static_cast<int>(blockIdx.x);
  LatentStretch stretch{};
  stretch.share = max(1, (length + ctas - 1) / ctas);
  stretch.begin = min(length, cta * stretch.share);
  stretch.end = min(length, stretch.begin + stretch.share);
  if (stretch.begin < stretch.end) {
    stretch.sequence = line.sequence_at(in.num_sequences, stretch.begin);
    stretch.sequence_start = line.line_start[stretch.sequence];
  }
  __syncthreads();
  return stretch;
}

template <class S>
__global__ void __launch_bounds__(kLatentThreads, 1)
    attention_latent(const __grid_constant__ AttentionInput in, const __grid_constant__ AttentionOutput output,
                     const LatentPartials partials) {
  extern __shared__ __align__(1024) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<LatentShared*>(shared_bytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kLatentStages; ++i) {
      init_barrier(&shared.full[i], kLatentProducers / 32);
      init_barrier(&shared.empty[i], kLatentConsumers / 32);
    }
  }
  const LatentStretch stretch = find_stretch(in, shared);  // of integers that no kernel of the step writes
  wait_for_previous();
  start_next();
  if (stretch.begin >= stretch.end) {
    if (threadIdx.x == 0) partials.units[blockIdx.x] = kNoSplitUnit;
    return;
  }
  if (threadIdx.x < kLatentProducers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(S::kProducerRegisters));
    LatentProducer<typename S::Cache>(in, stretch, shared).run();
  } else if (threadIdx.x < kLatentProducers + 128) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::kLeaderRegisters));
    consume<S, LatentLeader<S>>(in, output, partials, stretch, shared);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::kFollowerRegisters));
    consume<S, LatentFollower<S>>(in, output, partials, stretch, shared);
  }
}

constexpr std::string_view kName = "hopper.attention_latent";

std::string declines(const PagedAttentionOp& op, const Launch& launch) {
  if (op.head_dim() != kLatentKeyDim || op.value_dim() != kLatentDim || op.num_kv_heads() != 1 ||
      op.k_cache.bytes != op.v_cache.bytes || op.k_cache.row_stride != op.v_cache.row_stride) {
    return "takes one head of keys of 576 elements alone, whose first 512 are the values";
  }
  const DType cache = op.k_cache.dtype;
  if (op.q.dtype != DType::kBF16) return fmt::format("takes q in bf16, not {}", dtype_name(op.q.dtype));
  if (cache != DType::kBF16 && cache != DType::kF8E4M3) {
    return fmt::format("takes a cache in bf16 or f8_e4m3, not {}", dtype_name(cache));
  }
  if (op.quantized.data) return "writes no 8-bit result";
  if (op.k_head_scale || op.sliding_window != 0) return "takes neither a scale for each head nor a sliding window";
  if (!(op.k_scale * op.softmax_scale > 0.0f)) {
    return fmt::format("takes positive scales, not {} * {}", op.k_scale, op.softmax_scale);
  }
  if ((op.block_size() & (op.block_size() - 1)) != 0) {
    return fmt::format("takes blocks of a power of two of tokens, not {}", op.block_size());
  }
  if (op.num_sequences() > kLatentMaxSequences) {
    return fmt::format("takes at most {} sequences, not {}", kLatentMaxSequences, op.num_sequences());
  }
  if (op.q.row_stride % 8 != 0 || reinterpret_cast<uintptr_t>(op.q.bytes) % 16 != 0 ||
      op.k_cache.row_stride * dtype_bytes(cache) % 16 != 0 || reinterpret_cast<uintptr_t>(op.k_cache.bytes) % 16 != 0) {
    return "takes rows of q and blocks of the cache that are aligned to 16 bytes";
  }
  if (!rows_start_at(op.out, 8)) return "takes rows of out that are aligned to 8 bytes";
  const int64_t steps = (op.block_table.dim(1) * op.block_size() + kLatentKeys - 1) / kLatentKeys;
  if ((op.q.dim(0) * op.num_heads() / kLatentRows + op.num_sequences()) * steps > INT32_MAX / 2) {
    return fmt::format("takes fewer rows than {} of {} keys", op.q.dim(0), steps * kLatentKeys);
  }
  const int64_t ctas = launch.gpu->num_sms, bytes = latent_partial_bytes(ctas);
  if (ctas * int64_t{sizeof(SplitUnit)} > kLatentUnitBytes || bytes > launch.workspace.num_bytes) {
    return fmt::format("needs a workspace of {} bytes, not {}", bytes, launch.workspace.num_bytes);
  }
  return "";
}

template <class T>
void launch_latent(const PagedAttentionOp& op, const Launch& launch) {
  using S = LatentShape<T>;
  const int64_t ctas = launch.gpu->num_sms;
  const LatentPartials partials = latent_partials_in(launch.workspace, ctas);
  allow_shared_bytes(attention_latent<S>, sizeof(LatentShared));
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(ctas)), .block = dim3(kLatentThreads), .shared_bytes = sizeof(LatentShared)};
  launch_kernel(kName, launch, shape, attention_latent<S>, attention_input(op), attention_output(op), partials);
  launch_latent_combine(kName, op, launch, partials, ctas);
}

void run(const PagedAttentionOp& op, const Launch& launch) {
  if (op.q.dim(0) == 0) return;
  op.k_cache.dtype == DType::kBF16 ? launch_latent<BF16>(op, launch) : launch_latent<F8E4M3>(op, launch);
}

}  // namespace

Kernel<PagedAttentionOp> hopper_attention_latent() { return {.name = kName, .declines = declines, .run = run}; }

}  // namespace octet
