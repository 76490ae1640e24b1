// hopper.rope_attention_decode: all of attention between two matmuls of a decode step, one new token a sequence, in one
// kernel. A cluster of CTAs, each with KV heads of its own, makes splits of sequences (rope_attention_plan.cuh) as
// attention_warp.cuh says; the grid is fixed and shared out on the device, so that a recorded graph serves all lengths.
//
// The cache of earlier tokens, the block table, the lengths and the slots were there before the step: plan and first
// copies do not wait for the kernel before. What it makes, the projections, comes last: a CTA rotates its queries and
// the new key, and puts the new key and value into its tile in shared memory while they go to the cache.
//
// A sequence of one split is finished where it is made, its 8-bit scale found over the cluster. Of others each cluster
// leaves its partial results in the workspace, and the last one to do so, which a counter of the sequence tells, adds
// all of them in the order of the splits.
#include "octet/kernels/hopper/attention_decode.h"
#include "octet/kernels/hopper/attention_row_end.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/rope_attention_finish.cuh"
#include "octet/kernels/hopper/rope_attention_plan.cuh"
#include "octet/kernels/hopper/rope_attention_rows.cuh"

namespace octet {
namespace {

// What a CTA keeps besides its ring and the warps' results, with the values of one KV head's query heads.
template <class T, int kHeadDim, int kQueryBlocks>
constexpr int kOtherBytes = 2 * kHeadDim* static_cast<int>(sizeof(T)) + static_cast<int>(sizeof(RowPlan)) + 96 +
                            8 * kQueryBlocks* kHeadDim * 4;

template <class S>
struct SharedMemory {
  std::byte rings[kSplitWarps][S::kRingBytes];
  WarpResults<S> results;  // before a task's steps: its queries
  alignas(16) typename S::Element new_kv[2][S::kHeadDim];
  RowAmax amax;
  int last_of;  // the sequence of which the cluster was the last to leave results
  RowPlan plan;
  // The values of the CTA's heads follow, 16 bytes aligned.
};
template <class S>
constexpr int64_t kValuesAt = (int64_t{sizeof(SharedMemory<S>)} + 15) / 16 * 16;

struct Arguments {
  AttentionInput in;
  RopeInput rope;
  AttentionOutput out;
  SplitResults results;
  int32_t* counters;  // of the sequences' splits; 0 before and after
};

// A CTA's place in its cluster.
struct Place {
  int rank, num_ranks;
};

// Whether the cluster is the last of those that make splits of this sequence. All its threads call it.
template <class S>
__device__ bool is_last_cluster(const Arguments& a, const RowCursor& cursor, const Place& place,
                                SharedMemory<S>& shared) {
  __syncthreads();
  if (cursor.splits_made() == cursor.num_splits()) return true;
  if (threadIdx.x == 0) {
    int32_t* const counter = a.counters + cursor.sequence();
    const int all = cursor.num_splits() * place.num_ranks;
    __threadfence();
    if (atomicAdd(counter, cursor.splits_made()) + cursor.splits_made() == all) {
      __threadfence();
      *counter = 0;
      for (int peer = 0; peer < place.num_ranks; ++peer) {
        *cooperative_groups::this_cluster().map_shared_rank(&shared.last_of, static_cast<unsigned>(peer)) =
            cursor.sequence();
      }
    }
  }
  sync_row(place.num_ranks);
  return shared.last_of == cursor.sequence();
}

// The end of a sequence in this cluster. `turn`: of the row.
template <class S>
__device__ void finish_sequence(const Arguments& a, const RowCursor& cursor, const Place& place, float* values,
                                int& turn, SharedMemory<S>& shared) {
  const AttentionInput& in = a.in;
  const int num_passes = in.num_kv_heads / place.num_ranks;
  if (cursor.num_splits() > 1) {
    if (!is_last_cluster(a, cursor, place, shared)) return;
    for (int pass = 0; pass < num_passes; ++pass) {
      add_splits<S>(in, a.results, cursor.first_slot(), cursor.num_splits(), pass * place.num_ranks + place.rank,
                    values + pass * in.group * S::kHeadDim, shared.results);
    }
  }
  __syncthreads();
  const RowPart part{.t = cursor.sequence(),
                     .first_head = place.rank * in.group,
                     .heads = in.group,
                     .stride_heads = place.num_ranks * in.group,
                     .count = num_passes,
                     .rank = place.rank,
                     .num_ranks = place.num_ranks,
                     .turn = turn};
  write_part<S::kHeadDim>(a.out, part, values, shared.amax);
  turn ^= 1;
}

// Makes the task's new rows and takes the queries into registers.
template <class S>
__device__ void begin_task(const Arguments& a, const RowCursor& cursor, int slot, Queries<S>& queries,
                           SharedMemory<S>& shared) {
  BF16* const q = reinterpret_cast<BF16*>(&shared.results);
  __syncthreads();  // nobody needs the results that lay there
  make_rows<S>(a.rope, a.in, cursor.sequence(), cursor.kv_head(), {.slot = slot, .writes = cursor.writes_new_token()},
               {.q = q, .kv = shared.new_kv[0]});
  __syncthreads();
  queries.load(a.in, cursor.view(), cursor.kv_head(), 0, [&](int row) { return q + row * S::kHeadDim; });
}

template <class S>
__global__ void __launch_bounds__(kSplitThreads, S::kCtasPerSm)
    rope_attention(const __grid_constant__ Arguments a, int num_ranks) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<SharedMemory<S>*>(shared_bytes);
  float* const values = reinterpret_cast<float*>(shared_bytes + kValuesAt<S>);
  const uint32_t ring = shared_address(shared.rings[threadIdx.x / 32]);
  const Place place{static_cast<int>(blockIdx.x) % num_ranks, num_ranks};
  start_next();
  shared.plan.make(a.in, a.results.num_slots);
  RowTask first;
  RowTask stop;
  shared.plan.find_share(a.in, static_cast<int>(blockIdx.x) / num_ranks, static_cast<int>(gridDim.x) / num_ranks, first,
                         stop);
  if (first == stop) {
    if (blockIdx.x == 0) wait_for_previous();  // the end of this kernel means the end of all before it
    return;
  }
  RowCursor cursor(a.in, shared.plan, first, stop, place.rank, num_ranks);
  Fetcher<S, RowCursor> fetcher(a.in, cursor, ring);
  for (int stage = 0; stage < S::kInFlight; ++stage) fetcher.fetch(stage);
  int slot = a.rope.slot_mapping[cursor.sequence()];
  touch_rows<S>(a.rope, a.in, a.out, cursor.sequence(), cursor.kv_head());
  if (threadIdx.x == 0) shared.last_of = -1;
  wait_for_previous();
  int stage = 0;
  int turn = 0;
  Queries<S> queries;
  begin_task(a, cursor, slot, queries, shared);
  while (true) {
    Softmax<S> softmax;
    softmax.clear();
    const SequenceView view = cursor.view();
    const bool has_new_row = slot >= 0;
    add_keys<S>(a.in, view, cursor.keys(), queries, ring, stage, fetcher, softmax, [&](int key, uint32_t tile) {
      if (has_new_row && key + kStepKeys >= view.seq_len) {
        place_new_row<S>({.q = nullptr, .kv = shared.new_kv[0]}, view.seq_len - 1 - key, tile);
      }
    });
    if (cursor.num_splits() == 1) {
      put_whole<S>(a.in, softmax, values + cursor.pass() * a.in.group * S::kHeadDim, shared.results);
    } else {
      write_split<S>(a.in, a.results, cursor.slot(), cursor.kv_head(), softmax, shared.results);
    }
    if (cursor.ends_sequence()) finish_sequence(a, cursor, place, values, turn, shared);
    const int sequence = cursor.sequence();
    const int kv_head = cursor.kv_head();
    cursor.next();
    if (cursor.done()) return;
    if (cursor.sequence() != sequence || cursor.kv_head() != kv_head) {
      if (cursor.sequence() != sequence) slot = a.rope.slot_mapping[cursor.sequence()];
      begin_task(a, cursor, slot, queries, shared);
    }
  }
}

constexpr std::string_view kName = "hopper.rope_attention_decode";
constexpr int64_t kMaxValueBytes = 8 << 10;

// CTAs that share a row, with equally many KV heads.
int num_ranks(int64_t num_kv_heads) {
  int ranks = kMaxRanks;
  while (num_kv_heads % ranks != 0) --ranks;
  return ranks;
}

template <class T, int kHeadDim, int kQueryBlocks>
void launch_as(const RopeAttentionOp& op, const Launch& launch) {
  using S = DecodeShape<T, kHeadDim, kQueryBlocks, kOtherBytes<T, kHeadDim, kQueryBlocks>, true>;
  static_assert(sizeof(SharedMemory<S>) + 8 * kQueryBlocks * kHeadDim * 4 <= S::kMaxSharedBytes);
  static_assert(kValuesAt<S> + kMaxValueBytes <= 227 << 10);
  const PagedAttentionOp& attention = op.attention;
  const int ranks = num_ranks(attention.num_kv_heads());
  const int64_t values = attention.num_heads() / ranks * kHeadDim * int64_t{sizeof(float)};
  LaunchShape shape{.grid = dim3(static_cast<unsigned>(ranks)),
                    .block = dim3(kSplitThreads),
                    .shared_bytes = kValuesAt<S> + values,
                    .cluster = ranks};
  allow_shared_bytes(rope_attention<S>, shape.shared_bytes);
  shape.grid.x = static_cast<unsigned>(max_clusters(rope_attention<S>, shape) * ranks);
  const Arguments arguments{
      .in = attention_input(attention),
      .rope = rope_input(op.rope),
      .out = attention_output(attention),
      .results = split_results_in(launch.workspace, attention.num_kv_heads(), kHeadDim, S::kQueries),
      .counters = launch.workspace.counters};
  launch_kernel(kName, launch, shape, rope_attention<S>, arguments, ranks);
}

template <class T>
void run_on(const RopeAttentionOp& op, const Launch& launch) {
  const bool one_block = op.attention.num_heads() / op.attention.num_kv_heads() <= 8;
  const int64_t d = op.attention.head_dim();
  if (d == 64) return one_block ? launch_as<T, 64, 1>(op, launch) : launch_as<T, 64, 2>(op, launch);
  if (d == 128) return one_block ? launch_as<T, 128, 1>(op, launch) : launch_as<T, 128, 2>(op, launch);
  launch_as<T, 256, 1>(op, launch);
}

void run(const RopeAttentionOp& op, const Launch& launch) {
  if (op.attention.num_sequences() == 0) return;
  op.attention.k_cache.dtype == DType::kBF16 ? run_on<BF16>(op, launch) : run_on<F8E4M3>(op, launch);
}

std::string declines(const RopeAttentionOp& op, const Launch& launch) {
  const PagedAttentionOp& attention = op.attention;
  const int64_t d = attention.head_dim(), group = attention.num_heads() / attention.num_kv_heads();
  if (attention.q.dim(0) != attention.num_sequences()) return "takes one new token a sequence";
  if (attention.num_sequences() > kMaxDecodeSequences) {
    return fmt::format("takes at most {} sequences, not {}", kMaxDecodeSequences, attention.num_sequences());
  }
  if (std::string reason = declines_attention_decode(attention, launch, 1); !reason.empty()) return reason;
  if (!writes_quantized(attention)) return "does not write " + attention.quantized.format.to_string();
  if (group > (d == 256 ? 8 : 16)) return fmt::format("takes at most 16 heads a KV head (8 of 256), not {}", group);
  if (op.rope.cos.dim(1) * 2 != d) return fmt::format("rotates whole heads, not {} of {}", op.rope.cos.dim(1) * 2, d);
  if (attention.num_heads() / num_ranks(attention.num_kv_heads()) * d * int64_t{sizeof(float)} > kMaxValueBytes) {
    return fmt::format("keeps a CTA's part of a row in 8 KiB: too little for {} heads of {}", attention.num_heads(), d);
  }
  if (!rows_start_at(op.rope.qkv, 8) || !rows_start_at(op.rope.cos, 16) || !rows_start_at(op.rope.sin, 16)) {
    return "takes rows of qkv, cos and sin that are aligned to 8, 16 and 16 bytes";
  }
  if (launch.workspace.data != nullptr && launch.workspace.counters == nullptr) return "needs the workspace's counters";
  return "";
}

}  // namespace

Kernel<RopeAttentionOp> hopper_rope_attention_decode() { return {.name = kName, .declines = declines, .run = run}; }

}  // namespace octet
