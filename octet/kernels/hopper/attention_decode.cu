// hopper.attention_decode: paged attention for few new tokens a sequence, bound by the bytes of the cache. Two kernels:
// `decode` makes partial results of stretches of the keys (attention_line.cuh says which warp makes which,
// attention_warp.cuh how), `combine` adds those of a row and writes it. Takes any number of rows, but is made for
// Hq / Hkv * rows of at most 16 a sequence.
#include "octet/kernels/hopper/attention_combine.cuh"
#include "octet/kernels/hopper/attention_decode.h"
#include "octet/kernels/hopper/attention_line.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

template <class S>
struct SharedMemory {
  std::byte rings[kSplitWarps][S::kRingBytes];
  StepLine<S::kQueries> line;
};

template <class S>
__device__ void load_queries(const AttentionInput& in, const LineCursor<S::kQueries>& cursor, Queries<S>& queries) {
  const int kv_head = cursor.kv_head();
  const SequenceView& view = cursor.view();
  queries.load(in, view, kv_head, cursor.first_row(), [&](int row) {
    return static_cast<const BF16*>(in.q) + (view.first_row + row / in.group) * in.q_stride +
           (int64_t{kv_head} * in.group + row % in.group) * S::kHeadDim;
  });
}

// The warp's result, to its slot.
template <class S>
__device__ void write_partial(const Partials& partials, int64_t slot, const Queries<S>& queries,
                              const Softmax<S>& softmax) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
    for (int i = 0; i < 2; ++i) {
      float total = softmax.total[nb][i];
      for (int step = 4; step < 32; step *= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
      if (queries.row[nb][i] < 0) continue;
      const int64_t index = slot * S::kQueries + nb * 8 + lane % 4 * 2 + i;
      if (lane < 4) partials.softmax[index] = make_float2(softmax.highest[nb][i], total);
      float* const to = partials.sums + index * S::kHeadDim;
#pragma unroll
      for (int t = 0; t < S::kTiles; ++t) {
        to[dimension_of<S>(t, lane / 4, false)] = softmax.sums[t][nb][i];
        to[dimension_of<S>(t, lane / 4, true)] = softmax.sums[t][nb][i + 2];
      }
    }
  }
}

template <int kRows>
__device__ void write_header(const AttentionInput& in, const StepLine<kRows>& line, int share, PartialHeader& header) {
  if (threadIdx.x == 0) header.share = share;
  for (int s = static_cast<int>(threadIdx.x); s < in.num_sequences; s += kSplitThreads) {
    header.line_start[s] = line.line_start[s];
    header.unit_start[s] = line.slot_start[s];
  }
}

template <class S>
__global__ void __launch_bounds__(kSplitThreads, S::kCtasPerSm)
    decode(const __grid_constant__ AttentionInput in, const Partials partials, int max_rows) {
  using Cursor = LineCursor<S::kQueries>;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<SharedMemory<S>*>(shared_bytes);
  const uint32_t ring = shared_address(shared.rings[threadIdx.x / 32]);
  shared.line.make(in, max_rows);  // of integers that no kernel of the step writes
  const int share = shared.line.share(in, static_cast<int>(gridDim.x) * kSplitWarps);
  const int length = shared.line.length(in);
  // Neighbours on the line are on different SMs: an SM's warps then reach ends of units at different times.
  const int warp = static_cast<int>(threadIdx.x / 32 * gridDim.x + blockIdx.x);
  const auto begin_step = [&] {
    wait_for_previous();
    start_next();
    if (blockIdx.x == 0) write_header(in, shared.line, share, *partials.header);
  };
  if (int64_t{warp} * share >= length) return begin_step();
  Cursor cursor(in, shared.line, warp * share, min(length, (warp + 1) * share));
  Fetcher<S, Cursor> fetcher(in, cursor, ring);
  const int num_old = cursor.view().seq_len - cursor.view().num_rows;  // keys of steps before
  int fetched = 0;
  while (fetched < S::kInFlight && fetcher.next_is_below(cursor.sequence(), num_old)) fetcher.fetch(fetched++);
  begin_step();
  while (fetched < S::kInFlight) fetcher.fetch(fetched++);
  int stage = 0;
  while (true) {
    Queries<S> queries;
    load_queries<S>(in, cursor, queries);
    Softmax<S> softmax;
    softmax.clear();
    add_keys<S>(in, cursor.view(), cursor.keys(), queries, ring, stage, fetcher, softmax, [](int, uint32_t) {});
    write_partial<S>(partials, cursor.unit() + warp, queries, softmax);
    cursor.next();
    if (cursor.done()) return;
  }
}

constexpr std::string_view kName = "hopper.attention_decode";
constexpr int64_t kAnyRows = 1 << 30;

std::string declines(const PagedAttentionOp& op, const Launch& launch) {
  return declines_attention_decode(op, launch, kAnyRows);
}

struct Call {
  std::string_view name;
  const PagedAttentionOp& op;
  const Launch& launch;
  int64_t max_rows;
};

// Columns of a unit: eight are enough where every sequence has one row, the usual decode step.
int64_t columns_of(const PagedAttentionOp& op, int64_t max_rows) {
  const bool one_row = max_rows == 1 || op.q.dim(0) == op.num_sequences();
  return op.head_dim() == 256 || (one_row && op.num_heads() / op.num_kv_heads() <= 8) ? 8 : 16;
}

template <class T, int kHeadDim, int kQueryBlocks>
void launch_decode(const Call& call) {
  using S = DecodeShape<T, kHeadDim, kQueryBlocks, sizeof(StepLine<8 * kQueryBlocks>), false>;
  static_assert(sizeof(SharedMemory<S>) <= S::kMaxSharedBytes);
  allow_shared_bytes(decode<S>, sizeof(SharedMemory<S>));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(call.launch.gpu->num_sms * S::kCtasPerSm)),
                          .block = dim3(kSplitThreads),
                          .shared_bytes = sizeof(SharedMemory<S>)};
  const Partials partials = partials_in(call.launch.workspace, S::kQueries, kHeadDim);
  launch_kernel(call.name, call.launch, shape, decode<S>, attention_input(call.op), partials, call.max_rows);
  launch_combine<kHeadDim, S::kQueries>(call.op, call.launch, partials, call.max_rows, call.name);
}

template <class T, int kHeadDim>
void run_as(const Call& call) {
  if constexpr (kHeadDim < 256) {
    if (columns_of(call.op, call.max_rows) == 16) return launch_decode<T, kHeadDim, 2>(call);
  }
  launch_decode<T, kHeadDim, 1>(call);
}

template <class T>
void run_on(const Call& call) {
  if (call.op.head_dim() == 64) return run_as<T, 64>(call);
  if (call.op.head_dim() == 128) return run_as<T, 128>(call);
  run_as<T, 256>(call);
}

// Whether the line's length and the partial results of so many rows have room.
std::string declines_size(const PagedAttentionOp& op, const Launch& launch, int64_t max_rows) {
  const int64_t rows = std::min(op.q.dim(0), op.num_sequences() * max_rows);
  constexpr int64_t kMostCtasPerSm = 3, kMostSteps = 1 << 30;
  const int64_t columns = columns_of(op, max_rows), group = op.num_heads() / op.num_kv_heads();
  const int64_t units = op.num_kv_heads() * ((rows * group + columns - 1) / columns + op.num_sequences());
  const int64_t steps = (op.block_table.dim(1) * op.block_size() + kStepKeys - 1) / kStepKeys;
  if (units > kMostSteps / (kUnitCost + steps)) {
    return fmt::format("takes at most {} steps of {} keys, not those of {} rows of {} keys", kMostSteps, kStepKeys,
                       rows, op.block_table.dim(1) * op.block_size());
  }
  const int64_t slots = units + launch.gpu->num_sms * kMostCtasPerSm * kSplitWarps;
  const int num_slots = partials_in(launch.workspace, columns, op.head_dim()).num_slots;
  if (slots <= num_slots) return "";
  return fmt::format("has room for {} partial results in the workspace, not for the {} of {} rows", num_slots, slots,
                     rows);
}

void run(const PagedAttentionOp& op, const Launch& launch) {
  run_quantized(op, launch,
                [&](const PagedAttentionOp& plain) { run_attention_decode(kName, plain, launch, kAnyRows); });
}

}  // namespace

std::string declines_attention_decode(const PagedAttentionOp& op, const Launch& launch, int64_t max_rows) {
  const int64_t d = op.head_dim();
  const DType cache = op.k_cache.dtype;
  if (op.q.dtype != DType::kBF16) return fmt::format("takes q in bf16, not {}", dtype_name(op.q.dtype));
  if (cache != DType::kBF16 && cache != DType::kF8E4M3) {
    return fmt::format("takes a cache in bf16 or f8_e4m3, not {}", dtype_name(cache));
  }
  if (d != 64 && d != 128 && d != 256) return fmt::format("takes a head_dim of 64, 128 or 256, not {}", d);
  if (op.value_dim() != d) return fmt::format("takes values as long as keys, not of {} elements", op.value_dim());
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
    return fmt::format("keeps a CTA's part of a row in {} bytes: too little for {} heads of {}", kMaxRowBytes,
                       op.num_heads(), d);
  }
  if (std::string reason = declines_size(op, launch, max_rows); !reason.empty()) return reason;
  if (std::string reason = declines_row_end(op); !reason.empty()) return reason;
  return declines_quantized(op, launch);
}

void run_attention_decode(std::string_view name, const PagedAttentionOp& op, const Launch& launch, int64_t max_rows) {
  if (op.q.dim(0) == 0) return;
  const Call call{.name = name, .op = op, .launch = launch, .max_rows = max_rows};
  op.k_cache.dtype == DType::kBF16 ? run_on<BF16>(call) : run_on<F8E4M3>(call);
}

Kernel<PagedAttentionOp> hopper_attention_decode() { return {.name = kName, .declines = declines, .run = run}; }

}  // namespace octet