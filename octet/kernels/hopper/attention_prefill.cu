// hopper.attention_prefill: paged attention for batches with many new tokens of a sequence, bound by multiplications.
// Sequences with at most 16 rows of (new tokens x query heads of a KV head), decode tokens among them, go to
// attention_decode's kernel in the same run; the others are cut into tiles here. Which of the two a row meets, and so
// its bits, depends on how many new tokens its sequence has; on the rest of the batch it does not depend.
//
// A CTA makes tile after tile (attention_prefill_tile.cuh): 128 rows of one sequence and KV head, row r being query
// head r % G of new token r / G, so that all heads that share K and V share the tile. One warpgroup fetches: tiles of
// 128 keys, through the block table, into a ring of two stages; 8-bit caches are widened to f16 on the way (exact; then
// q is f16 too, scaled per row by a power of two, and weights are kept times 2^8, as in attention_decode). Two
// warpgroups of 64 rows multiply (wgmma): the scores of the next tile of keys run while the softmax of this one is
// computed, and the warpgroups take turns, after Shah et al. 2024 (FlashAttention-3). Key tiles lie at fixed positions
// and are taken in ascending order. The next tile's queries and first keys come, and its first scores are multiplied,
// beside the last keys of this one. Cells that no query sees are not read: zeros take their place.
#include "octet/kernels/cuda/rows.cuh"
#include "octet/kernels/hopper/attention_decode.h"
#include "octet/kernels/hopper/attention_prefill_consumer.cuh"
#include "octet/kernels/hopper/attention_prefill_producer.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

using namespace prefill;

template <class S>
__global__ void __launch_bounds__(kThreads, 1)
    attention_tiles(const __grid_constant__ AttentionInput in, const __grid_constant__ AttentionOutput output,
                    int max_decode_rows, int32_t* counters) {
  extern __shared__ __align__(1024) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<SharedMemory<S>*>(shared_bytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * kStages; ++i) {
      init_barrier(&shared.full[i], 2);
      init_barrier(&shared.empty[i], 4 * kConsumers);
    }
  }
  if (threadIdx.x == 0) shared.queue.init();
  shared.line.make(in, max_decode_rows);  // of integers that no kernel of the step writes
  const int first = static_cast<int>(blockIdx.x);
  wait_for_previous();
  if (!shared.line.has_tile(in, first)) {
    if (threadIdx.x == 0) TileQueue::finish(counters);
  } else if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(S::kProducerRegisters));
    Producer<S>(in, shared, counters, first).run();
    if (threadIdx.x == 0) TileQueue::finish(counters);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::kConsumerRegisters));
    Consumer<S> consumer{in, output, shared};
    consumer.run(first);
  }
}

struct QuantizeArguments {
  AttentionInput in;
  RowInput x;
  RowOutput out;
  int max_decode_rows;
};

// Dynamic 8-bit rows of the sequences of more than max_decode_rows rows, from `out` as it was written. One row a CTA.
template <RowKind kKind, int kVector, int kVectors>
__global__ void __launch_bounds__(kRowThreads) quantize_rows(const __grid_constant__ QuantizeArguments a) {
  __shared__ int found;
  __shared__ float maxima[32];
  const int row = static_cast<int>(blockIdx.x);
  start_next();
  if (a.max_decode_rows > 0) {
    const int s = sequence_of_row(a.in, row, &found);
    if (s < 0 || a.in.query_start[s + 1] - a.in.query_start[s] <= a.max_decode_rows) return;
  }
  wait_for_previous();
  const int columns = a.in.num_heads * a.in.head_dim;
  const RowFormat format = format_of<kKind>(a.out);
  float x[kVectors][kVector] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = column_of<kVector>(i);
    if (column < columns) load_elements(a.x.data, kKind == RowKind::kAny && a.x.f32, row * a.x.stride + column, x[i]);
  }
  const float amax = row_max(largest_magnitude(x, format), maxima);
  const float scale = output_scale(a.out, format, row, amax, threadIdx.x == 0);
  write_row(a.out, format, row, 0, columns, scale, x);
}

constexpr std::string_view kName = "hopper.attention_prefill";

RowShape quantize_shape(const PagedAttentionOp& op) { return row_shape(op.out.dim(1), {op.out, op.quantized.data}); }

void run_quantize_rows(const PagedAttentionOp& op, const Launch& launch, int64_t decode_rows) {
  const QuantizeArguments arguments{.in = attention_input(op),
                                    .x = row_input(op.out),
                                    .out = row_output(op.quantized),
                                    .max_decode_rows = static_cast<int>(decode_rows)};
  const RowShape shape = quantize_shape(op);
  const RowKind kind = row_kind(!arguments.x.f32, shape, arguments.out);
  dispatch_row(kind, shape, [&]<RowKind kKind, int kVector, int kVectors>() {
    launch_kernel(
        kName, launch,
        {.grid = dim3(static_cast<unsigned>(op.q.dim(0))), .block = dim3(static_cast<unsigned>(shape.threads))},
        quantize_rows<kKind, kVector, kVectors>, arguments);
  });
}

// Sequences of so many rows are left to attention_decode. Where so many rows are a prompt's, the others mostly have
// one, and attention_decode is fastest when it knows that.
int64_t max_decode_rows(const PagedAttentionOp& op) {
  const int64_t most = kDecodeRows / (op.num_heads() / op.num_kv_heads());
  return op.q.dim(0) > most * op.num_sequences() ? std::min<int64_t>(most, 1) : most;
}

// What the shapes alone say of a batch of one sequence.
bool only_decode(const PagedAttentionOp& op) { return op.num_sequences() == 1 && op.q.dim(0) <= max_decode_rows(op); }
bool no_decode(const PagedAttentionOp& op) {
  return max_decode_rows(op) == 0 || (op.num_sequences() == 1 && op.q.dim(0) > max_decode_rows(op));
}

std::string declines_tiles(const PagedAttentionOp& op, const Launch& launch, int64_t decode_rows) {
  const int64_t d = op.head_dim();
  if (d != 64 && d != 128) return fmt::format("takes a head_dim of 64 or 128, not {}", d);
  if (!(op.k_scale * op.softmax_scale > 0.0f)) {
    return fmt::format("takes positive scales, not {} * {}", op.k_scale, op.softmax_scale);
  }
  if (launch.workspace.counters == nullptr) return "needs counters in the workspace";
  if (op.quantized.data && op.quantized.format.dynamic) {
    if (std::string reason = declines_shape(quantize_shape(op)); !reason.empty()) return reason;
  }
  return declines_attention_decode(op, launch, decode_rows);
}

std::string declines(const PagedAttentionOp& op, const Launch& launch) {
  if (op.q.dim(0) == op.num_sequences() || only_decode(op)) return "has few rows: attention_decode is made for that";
  return declines_tiles(op, launch, max_decode_rows(op));
}

// decode_rows: sequences of so many rows are left to attention_decode.
template <class T, int kHeadDim>
void launch_prefill(const PagedAttentionOp& op, const Launch& launch, int64_t decode_rows) {
  using S = PrefillShape<T, kHeadDim>;
  const int64_t group = op.num_heads() / op.num_kv_heads();
  const int64_t most_tiles = (op.q.dim(0) * group / kTileRows + op.num_sequences()) * op.num_kv_heads();
  allow_shared_bytes(attention_tiles<S>, sizeof(SharedMemory<S>));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(std::min<int64_t>(most_tiles, launch.gpu->num_sms))),
                          .block = dim3(kThreads),
                          .shared_bytes = sizeof(SharedMemory<S>)};
  launch_kernel(kName, launch, shape, attention_tiles<S>, attention_input(op), attention_output(op), decode_rows,
                launch.workspace.counters);
}

template <class T>
void launch_prefill(const PagedAttentionOp& op, const Launch& launch, int64_t decode_rows) {
  op.head_dim() == 64 ? launch_prefill<T, 64>(op, launch, decode_rows)
                      : launch_prefill<T, 128>(op, launch, decode_rows);
}

void run_tiles(const PagedAttentionOp& op, const Launch& launch, int64_t decode_rows) {
  if (op.q.dim(0) == 0) return;
  op.k_cache.dtype == DType::kBF16 ? launch_prefill<BF16>(op, launch, decode_rows)
                                   : launch_prefill<F8E4M3>(op, launch, decode_rows);
  if (op.quantized.data && op.quantized.format.dynamic) run_quantize_rows(op, launch, decode_rows);
}

void run(const PagedAttentionOp& given, const Launch& launch) {
  run_quantized(given, launch, [&](const PagedAttentionOp& op) {
    if (op.q.dim(0) > 0 && !no_decode(op)) run_attention_decode(kName, op, launch, max_decode_rows(op));
    run_tiles(op, launch, max_decode_rows(op));
  });
}

void run_all_in_tiles(const PagedAttentionOp& given, const Launch& launch) {
  run_quantized(given, launch, [&](const PagedAttentionOp& op) { run_tiles(op, launch, 0); });
}

}  // namespace

Kernel<PagedAttentionOp> hopper_attention_prefill() { return {.name = kName, .declines = declines, .run = run}; }

// Every sequence in tiles, those with few rows too: slower for them, and the same bits however a prompt is cut.
Kernel<PagedAttentionOp> hopper_attention_tiles() {
  return {.name = "hopper.attention_tiles",
          .declines = [](const PagedAttentionOp& op, const Launch& l) { return declines_tiles(op, l, 0); },
          .run = run_all_in_tiles};
}

}  // namespace octet
