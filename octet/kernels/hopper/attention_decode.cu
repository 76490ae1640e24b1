// hopper.attention_decode: paged attention for few new tokens a sequence, bound by the bytes of the cache. Two kernels:
// `decode` makes partial results of splits of the keys (attention_plan.cuh says which CTA makes which,
// attention_warp.cuh how), `combine` adds those of a row in the order of the splits and writes it. Takes any number of
// rows, but is made for Hq / Hkv * rows of at most 16 a sequence.
#include "octet/kernels/hopper/attention_combine.cuh"
#include "octet/kernels/hopper/attention_decode.h"
#include "octet/kernels/hopper/attention_stream.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

template <class S>
using PlanOf = Plan<kSplitThreads, S::kQueries>;

template <class S>
struct SharedMemory {
  std::byte rings[kSplitWarps][S::kRingBytes];
  WarpResults<S> results;
  PlanOf<S> plan;
};

// The tasks of a CTA, one after the other.
template <class S>
class TaskCursor {
 public:
  __device__ TaskCursor(const AttentionInput& in, const PlanOf<S>& plan, const Task& first, const Task& stop)
      : in_(in), plan_(plan), task_(first), stop_(stop), view_(in, min(first.sequence, in.num_sequences - 1)) {}

  __device__ bool done() const { return task_ == stop_; }
  __device__ int sequence() const { return task_.sequence; }
  __device__ int head_block() const { return task_.head_block; }
  __device__ const SequenceView& view() const { return view_; }
  __device__ int row_blocks() const { return PlanOf<S>::row_blocks(in_, view_); }
  __device__ int kv_head() const {
    const int blocks = row_blocks();
    return blocks == 1 ? task_.head_block : task_.head_block / blocks;
  }
  __device__ TaskKeys keys() const { return {view_, plan_.splits, task_.split}; }
  // Of the partial result of the sequence's first row.
  __device__ int64_t slot() const {
    return plan_.slot_start[task_.sequence] + task_.split - view_.first_split(plan_.splits);
  }
  __device__ int num_splits() const { return view_.num_splits(plan_.splits); }

  __device__ void next() {
    const int sequence = task_.sequence;
    task_ = plan_.after(in_, task_, view_);
    if (task_.sequence != sequence && task_.sequence < in_.num_sequences) view_ = SequenceView(in_, task_.sequence);
  }

 private:
  const AttentionInput& in_;
  const PlanOf<S>& plan_;
  Task task_;
  Task stop_;
  SequenceView view_;
};

template <class S>
__device__ void load_queries(const AttentionInput& in, const TaskCursor<S>& cursor, Queries<S>& queries) {
  const SequenceView& view = cursor.view();
  const int kv_head = cursor.kv_head();
  queries.load(in, view, kv_head, cursor.head_block() % cursor.row_blocks() * S::kQueries, [&](int row) {
    return static_cast<const BF16*>(in.q) + (view.first_row + row / in.group) * in.q_stride +
           (int64_t{kv_head} * in.group + row % in.group) * S::kHeadDim;
  });
}

// A task's result, to its slots.
template <class S>
__device__ void write_partial(const AttentionInput& in, const Partials& partials, const TaskCursor<S>& cursor,
                              const Queries<S>& queries, const Softmax<S>& softmax, WarpResults<S>& results) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t slot = cursor.slot();
  const int num_splits = cursor.num_splits();
  merge_warps<S>(softmax, results, [&](int t, int nb, const float(&sums)[4], const Merge<S>& merge) {
    for (int i = 0; i < 2; ++i) {
      if (queries.row[nb][i] < 0) continue;
      const int64_t index = (slot + queries.row[nb][i] * num_splits) * in.num_heads + queries.head[nb][i];
      if (t == 0 && lane < 4) partials.softmax[index] = make_float2(merge.highest[nb][i], merge.total[nb][i]);
      float* const to = partials.sums + index * S::kHeadDim;
      to[dimension_of<S>(t, lane / 4, false)] = sums[i];
      to[dimension_of<S>(t, lane / 4, true)] = sums[i + 2];
    }
  });
}

template <class S>
__global__ void __launch_bounds__(kSplitThreads, S::kCtasPerSm)
    decode(const __grid_constant__ AttentionInput in, const Partials partials, int max_rows) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<SharedMemory<S>*>(shared_bytes);
  const uint32_t ring = shared_address(shared.rings[threadIdx.x / 32]);
  wait_for_previous();
  start_next();
  shared.plan.make(in, max_rows, partials.num_slots);
  if (blockIdx.x == 0) {
    if (threadIdx.x == 0) partials.header->shift = shared.plan.splits.shift;
    for (int s = static_cast<int>(threadIdx.x); s < in.num_sequences; s += kSplitThreads) {
      partials.header->slot_start[s] = shared.plan.slot_start[s];
    }
  }
  Task task;
  Task stop;
  shared.plan.find_share(in, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), task, stop);
  if (task == stop) return;
  TaskCursor<S> cursor(in, shared.plan, task, stop);
  Fetcher<S, TaskCursor<S>> fetcher(in, cursor, ring);
  for (int stage = 0; stage < S::kInFlight; ++stage) fetcher.fetch(stage);
  int stage = 0;
  Queries<S> queries;
  load_queries(in, cursor, queries);
  while (true) {
    Softmax<S> softmax;
    softmax.clear();
    add_keys<S>(in, cursor.view(), cursor.keys(), queries, ring, stage, fetcher, softmax, [](int, uint32_t) {});
    write_partial<S>(in, partials, cursor, queries, softmax, shared.results);
    const int sequence = cursor.sequence();
    const int head_block = cursor.head_block();
    cursor.next();
    if (cursor.done()) return;
    if (cursor.sequence() != sequence || cursor.head_block() != head_block) load_queries(in, cursor, queries);
  }
}

constexpr std::string_view kName = "hopper.attention_decode";
constexpr int64_t kMaxRowBytes = 32 << 10;
constexpr int64_t kAnyRows = 1 << 30;

std::string declines(const PagedAttentionOp& op, const Launch& launch) {
  return declines_attention_decode(op, launch, kAnyRows);
}

struct Call {
  std::string_view name;
  const PagedAttentionOp& op;
  const Launch& launch;
  Partials partials;
  int64_t max_rows;
};

template <class T, int kHeadDim, int kQueryBlocks>
void launch_decode(const Call& call) {
  using S = DecodeShape<T, kHeadDim, kQueryBlocks, sizeof(Plan<kSplitThreads, 8 * kQueryBlocks>)>;
  static_assert(sizeof(SharedMemory<S>) <= S::kMaxSharedBytes);
  allow_shared_bytes(decode<S>, sizeof(SharedMemory<S>));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(call.launch.gpu->num_sms * S::kCtasPerSm)),
                          .block = dim3(kSplitThreads),
                          .shared_bytes = sizeof(SharedMemory<S>)};
  launch_kernel(call.name, call.launch, shape, decode<S>, attention_input(call.op), call.partials, call.max_rows);
}

template <class T, int kHeadDim>
void run_as(const Call& call) {
  const PagedAttentionOp& op = call.op;
  // Eight columns are enough where every sequence has one row: the usual decode step.
  if (kHeadDim == 256 || (op.q.dim(0) == op.num_sequences() && op.num_heads() / op.num_kv_heads() <= 8)) {
    launch_decode<T, kHeadDim, 1>(call);
  } else {
    launch_decode<T, kHeadDim, kHeadDim == 256 ? 1 : 2>(call);
  }
  launch_combine<kHeadDim>(op, call.launch, call.partials, call.max_rows, call.name);
}

template <class T>
void run_on(const Call& call) {
  if (call.op.head_dim() == 64) return run_as<T, 64>(call);
  if (call.op.head_dim() == 128) return run_as<T, 128>(call);
  run_as<T, 256>(call);
}

void run(const PagedAttentionOp& op, const Launch& launch) { run_attention_decode(kName, op, launch, kAnyRows); }

}  // namespace

std::string declines_attention_decode(const PagedAttentionOp& op, const Launch& launch, int64_t max_rows) {
  const int64_t d = op.head_dim();
  const DType cache = op.k_cache.dtype;
  if (op.q.dtype != DType::kBF16) return fmt::format("takes q in bf16, not {}", dtype_name(op.q.dtype));
  if (cache != DType::kBF16 && cache != DType::kF8E4M3) {
    return fmt::format("takes a cache in bf16 or f8_e4m3, not {}", dtype_name(cache));
  }
  if (d != 64 && d != 128 && d != 256) return fmt::format("takes a head_dim of 64, 128 or 256, not {}", d);
  if (op.block_size() < kStepKeys || (op.block_size() & (op.block_size() - 1)) != 0) {
    return fmt::format("takes blocks of a power of two of at least 16 tokens, not {}", op.block_size());
  }
  if (op.num_sequences() > kMaxSequences) {
    return fmt::format("takes at most {} sequences, not {}", kMaxSequences, op.num_sequences());
  }
  const int64_t unit = 16 / dtype_bytes(cache);
  if (op.q.row_stride % 8 != 0 || op.k_cache.row_stride % unit != 0 || op.v_cache.row_stride % unit != 0 ||
      reinterpret_cast<uintptr_t>(op.q.bytes) % 16 != 0) {
    return fmt::format("reads 16 bytes at once: rows of q are {}, blocks {} and {} elements apart", op.q.row_stride,
                       op.k_cache.row_stride, op.v_cache.row_stride);
  }
  if (op.num_heads() / row_cluster(op.num_heads()) * d * int64_t{sizeof(float)} > kMaxRowBytes) {
    return fmt::format("keeps a CTA's part of a row in 32 KiB: too little for {} heads of {}", op.num_heads(), d);
  }
  const int num_slots = partials_in(launch.workspace, op.num_heads(), d).num_slots;
  const int64_t rows = std::min(op.q.dim(0), op.num_sequences() * max_rows);
  if (rows > num_slots) {
    return fmt::format("has room for partial results of {} rows in the workspace, not {}", num_slots, rows);
  }
  return declines_quantized(op);
}

void run_attention_decode(std::string_view name, const PagedAttentionOp& op, const Launch& launch, int64_t max_rows) {
  if (op.q.dim(0) == 0) return;
  const Call call{.name = name,
                  .op = op,
                  .launch = launch,
                  .partials = partials_in(launch.workspace, op.num_heads(), op.head_dim()),
                  .max_rows = max_rows};
  op.k_cache.dtype == DType::kBF16 ? run_on<BF16>(call) : run_on<F8E4M3>(call);
}

Kernel<PagedAttentionOp> hopper_attention_decode() { return {.name = kName, .declines = declines, .run = run}; }

}  // namespace octet