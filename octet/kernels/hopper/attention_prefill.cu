// hopper.attention_prefill: paged attention for batches with many new tokens of a sequence, bound by multiplications.
// Sequences with at most 16 rows of (new tokens x query heads of a KV head), decode tokens among them, go to
// attention_decode's kernel in the same run; the others are cut into tiles here. Which of the two a row meets, and so
// its bits, depends on how many new tokens its sequence has; on the rest of the batch it does not depend.
//
// A CTA makes one tile: 128 rows of one sequence and KV head, row r being query head r % G of new token r / G, so that
// all heads that share K and V share the tile. One warpgroup fetches: tiles of 128 keys, through the block table, into
// a ring of two stages; 8-bit caches are widened to f16 on the way (exact; then q is f16 too, scaled per row by a power
// of two, and weights are kept times 2^8, as in attention_decode). Two warpgroups of 64 rows multiply (wgmma): the
// scores of the next tile of keys run while the softmax of this one is computed, and the warpgroups take turns, after
// Shah et al. 2024 (FlashAttention-3). Key tiles lie at fixed positions and are taken in ascending order.
//
// The grid has room for every possible batch of T rows and S sequences; CTAs beyond the tiles that there are leave.
// Tiles with the most keys start first. Cells that no query sees are not read: zeros take their place.
#include "octet/kernels/hopper/attention_decode.h"
#include "octet/kernels/hopper/attention_prefill.cuh"
#include "octet/kernels/hopper/attention_wgmma.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kTileRows = 64 * kConsumers;
constexpr int kTileKeys = 128;
constexpr int kStages = 2;
constexpr int kDecodeRows = 16;  // (new tokens x heads of the group) of a sequence that attention_decode makes

template <class T, int kDim>
struct PrefillShape {
  using Element = T;
  static constexpr bool kBf16 = sizeof(T) == 2;
  static constexpr int kHeadDim = kDim;
  static constexpr int kChunks = kDim / 64;            // of 128 bytes of 16-bit elements a row
  static constexpr int kChunkBytes = 128 * kTileKeys;  // of all keys (or rows of q)
  static constexpr int kTileBytes = kChunks * kChunkBytes;
  // Together what the kernel starts with, 3 * 168; widening takes more registers than copying.
  static constexpr int kProducerRegisters = kBf16 ? 56 : 88;
  static constexpr int kConsumerRegisters = kBf16 ? 224 : 208;
  static constexpr int kPieces = kDim * static_cast<int>(sizeof(T)) / 16;  // of 16 bytes of a key in the cache
};

template <class S>
struct SharedMemory {
  alignas(1024) std::byte q[S::kTileBytes];
  alignas(1024) std::byte k[kStages][S::kTileBytes];
  alignas(1024) std::byte v[kStages][S::kTileBytes];
  float q_scale[kTileRows];
  uint64_t full[2 * kStages];  // K and V of stage 0, of stage 1
  uint64_t empty[2 * kStages];
  int2 found;  // sequence and tile
};

// Byte of 16-byte piece `piece` of 16-bit elements of row `row` in a tile.
__device__ uint32_t place(int row, int piece) {
  return static_cast<uint32_t>(piece / 8 * 128 * kTileKeys + row * 128 + (piece % 8 ^ row % 8) * 16);
}

// What a CTA has to do.
struct Tile {
  int sequence;
  int kv_head;
  int first;               // row of (new tokens x heads of the group)
  int num_rows;            // of them in the sequence
  int first_key, end_key;  // that some row of the tile sees
};

// Finds the CTA's tile; false: there is none. All threads call it.
__device__ bool find_tile(const AttentionInput& in, int max_decode_rows, int2* found, Tile& tile) {
  const int group = in.group;
  const int wanted = static_cast<int>(blockIdx.x) / in.num_kv_heads;
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    if (lane == 0) *found = {-1, 0};
    __syncwarp();
    int before = 0;
    for (int base = 0; base < in.num_sequences && before <= wanted; base += 32) {
      const int s = base + lane;
      int tiles = 0;
      if (s < in.num_sequences) {
        const int rows = in.query_start[s + 1] - in.query_start[s];
        if (rows > max_decode_rows) tiles = (rows * group + kTileRows - 1) / kTileRows;
      }
      int sum = tiles;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
      }
      const int start = before + sum - tiles;
      if (start <= wanted && wanted < start + tiles) *found = {s, tiles - 1 - (wanted - start)};
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
  if (found->x < 0) return false;
  const SequenceView view(in, found->x);
  tile.sequence = found->x;
  tile.kv_head = static_cast<int>(blockIdx.x) % in.num_kv_heads;
  tile.first = found->y * kTileRows;
  tile.num_rows = view.num_rows * group;
  const int first_position = view.seq_len - view.num_rows + tile.first / group;
  const int last_row = min(tile.first + kTileRows, tile.num_rows) - 1;
  tile.end_key = view.seq_len - view.num_rows + last_row / group + 1;
  tile.first_key = in.sliding_window > 0 ? max(0, first_position - in.sliding_window + 1) : 0;
  return true;
}

// The fetching warpgroup: two warps bring K, two V. A thread brings one 16-byte piece of kPieces consecutive keys,
// which lie in one block, of either half of every tile.
template <class S>
class Producer {
 public:
  __device__ Producer(const AttentionInput& in, const Tile& tile, SharedMemory<S>& shared)
      : in_(in), tile_(tile), shared_(shared), block_shift_(log2_of(in.block_size)) {
    const int thread = static_cast<int>(threadIdx.x) % 64;
    which_ = static_cast<int>(threadIdx.x) / 64;
    piece_ = thread % S::kPieces;
    first_ = thread / S::kPieces * S::kPieces;
    const auto* cache = static_cast<const typename S::Element*>(which_ == 0 ? in.k_cache : in.v_cache);
    block_stride_ = which_ == 0 ? in.k_block_stride : in.v_block_stride;
    of_head_ =
        reinterpret_cast<const std::byte*>(cache + int64_t{tile.kv_head} * in.block_size * S::kHeadDim) + piece_ * 16;
  }

  __device__ void run() {
    const int begin = tile_.first_key / kTileKeys;
    const int count = (tile_.end_key + kTileKeys - 1) / kTileKeys - begin;
    if constexpr (S::kBf16) {
      for (int i = 0; i < count; ++i) {
        wait_for_room(i);
        for (int half = 0; half < 2; ++half) copy((begin + i) * kTileKeys, half, buffer(i));
        commit_copies();
        wait_for_copies<0>();
        announce(i);
      }
    } else {
      // A register is widened and at once filled with what comes half a tile later.
      uint4 pieces[S::kPieces];
      const std::byte* from = source(begin * kTileKeys + first_);
#pragma unroll
      for (int j = 0; j < S::kPieces; ++j) pieces[j] = load(from, begin * kTileKeys + first_, j);
      for (int i = 0; i < 2 * count; ++i) {
        const int next_key = (2 * begin + i + 1) * (kTileKeys / 2) + first_;  // beyond the last: nothing is seen
        from = source(next_key);
        if (i % 2 == 0) wait_for_room(i / 2);
        const uint32_t to = buffer(i / 2);
        const int row = i % 2 * (kTileKeys / 2) + first_;
#pragma unroll
        for (int j = 0; j < S::kPieces; ++j) {
          const uint4 piece = pieces[j];
          pieces[j] = load(from, next_key, j);
          store(to, row + j, piece);
        }
        if (i % 2 == 1) announce(i / 2);
      }
    }
  }

 private:
  __device__ void wait_for_room(int i) {
    if (i >= kStages) wait_barrier(&shared_.empty[i % kStages * 2 + which_], (i / kStages - 1) % 2);
  }
  __device__ void announce(int i) {
    fence_shared_for_wgmma();
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_barrier(&shared_.full[i % kStages * 2 + which_]);
  }
  __device__ uint32_t buffer(int i) const {
    return shared_address(which_ == 0 ? shared_.k[i % kStages] : shared_.v[i % kStages]);
  }
  __device__ bool seen(int key) const { return key >= tile_.first_key && key < tile_.end_key; }

  // This thread's piece of key `key`; of no use unless one of the kPieces keys from there on is seen.
  __device__ const std::byte* source(int key) const {
    const bool any = key < tile_.end_key && key + S::kPieces > tile_.first_key;
    const int64_t block = any ? in_.block_table[tile_.sequence * in_.table_stride + (key >> block_shift_)] : 0;
    const int64_t elements = block * block_stride_ + int64_t{key & (in_.block_size - 1)} * S::kHeadDim;
    return of_head_ + elements * int64_t{sizeof(typename S::Element)};
  }

  __device__ void copy(int first_key, int half, uint32_t to) const {
    const int row = half * (kTileKeys / 2) + first_;
    const std::byte* from = source(first_key + row);
#pragma unroll
    for (int j = 0; j < S::kPieces; ++j) {
      const bool wanted = seen(first_key + row + j);
      copy_async_16_or_zeros(to + place(row + j, piece_), wanted ? from + j * S::kHeadDim * 2 : from, wanted);
    }
  }

  __device__ uint4 load(const std::byte* from, int key, int j) const {
    if (!seen(key + j)) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(from + j * S::kHeadDim);
  }

  // 16 elements as f16 are two pieces; threads of the upper half of a row store them in the other order, so that eight
  // of a row meet no bank twice.
  __device__ void store(uint32_t to, int row, const uint4& piece) const {
    const bool swapped = piece_ >= S::kPieces / 2;
    const uint4 low = widen(piece.x, piece.y);
    const uint4 high = widen(piece.z, piece.w);
    store_shared_16(to + place(row, 2 * piece_ + (swapped ? 1 : 0)), swapped ? high : low);
    store_shared_16(to + place(row, 2 * piece_ + (swapped ? 0 : 1)), swapped ? low : high);
  }
  __device__ static uint4 widen(uint32_t first, uint32_t second) {
    return make_uint4(e4m3_to_f16(static_cast<uint16_t>(first)), e4m3_to_f16(static_cast<uint16_t>(first >> 16)),
                      e4m3_to_f16(static_cast<uint16_t>(second)), e4m3_to_f16(static_cast<uint16_t>(second >> 16)));
  }

  const AttentionInput& in_;
  const Tile& tile_;
  SharedMemory<S>& shared_;
  int block_shift_;
  int which_;  // 0: K, 1: V
  int piece_, first_;
  int64_t block_stride_;
  const std::byte* of_head_;
};

// q of the tile to shared memory, by all consumers: a row by as many lanes as it has pieces of 16 bytes. Rows beyond
// the sequence's are zeros.
template <class S>
__device__ void load_queries(const AttentionInput& in, const Tile& tile, SharedMemory<S>& shared) {
  constexpr int kLanes = S::kHeadDim / 8;
  const int thread = static_cast<int>(threadIdx.x) - 128;
  const int group = in.group;
  const int first_row = in.query_start[tile.sequence];
  const uint32_t to = shared_address(shared.q);
#pragma unroll 4
  for (int row = thread / kLanes; row < kTileRows; row += 128 * kConsumers / kLanes) {
    const int r = tile.first + row;
    uint4 piece = make_uint4(0, 0, 0, 0);
    if (r < tile.num_rows) {
      const int64_t offset = (first_row + r / group) * in.q_stride +
                             (int64_t{tile.kv_head} * group + r % group) * S::kHeadDim + thread % kLanes * 8;
      piece = *reinterpret_cast<const uint4*>(static_cast<const BF16*>(in.q) + offset);
    }
    if constexpr (!S::kBf16) {
      uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
      float amax = 0.0f;
      for (const uint32_t word : words) {
        const float2 pair = unpack_bf16(word);
        amax = fmaxf(amax, fmaxf(fabsf(pair.x), fabsf(pair.y)));
      }
      for (int step = kLanes / 2; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
      const PowerOfTwo scale = f16_scale(amax);
      for (uint32_t& word : words) {
        const float2 pair = unpack_bf16(word);
        word = pack_pair<false>(pair.x * scale.factor, pair.y * scale.factor);
      }
      piece = make_uint4(words[0], words[1], words[2], words[3]);
      if (thread % kLanes == 0) shared.q_scale[row] = scale.inverse;
    }
    store_shared_16(to + place(row, thread % kLanes), piece);
  }
  fence_shared_for_wgmma();
  // All consumers, and they alone.
  asm volatile("bar.sync 1, %0;" ::"n"(128 * kConsumers) : "memory");
}

// One of the multiplying warpgroups: 64 rows of the tile. A thread has two of them, lane / 4 and lane / 4 + 8 of its
// warp's 16.
template <class S>
struct Consumer {
  const AttentionInput& in;
  const Tile& tile;
  SharedMemory<S>& shared;
  uint32_t q;                                 // this warpgroup's rows
  float scale[2];                             // of a score, to base-2 logarithms
  int position[2];                            // of the row's token
  float highest[2] = {-INFINITY, -INFINITY};  // of the unscaled scores
  float total[2] = {0.0f, 0.0f};              // this thread's columns
  int lowest_position;                        // of the warpgroup's rows: keys up to it need no mask

  __device__ Consumer(const AttentionInput& input, const Tile& t, SharedMemory<S>& memory)
      : in(input), tile(t), shared(memory) {
    const int group = in.group;
    const SequenceView view(in, tile.sequence);
    const int first = (static_cast<int>(threadIdx.x) / 128 - 1) * 64;
    q = shared_address(shared.q) + static_cast<uint32_t>(first * 128);
    lowest_position = view.seq_len - view.num_rows + min(tile.first + first, tile.num_rows - 1) / group;
    for (int i = 0; i < 2; ++i) {
      const int row = first + first_row_of_thread() + 8 * i;
      scale[i] = in.score_scale * kLog2e * (S::kBf16 ? 1.0f : shared.q_scale[row]);
      position[i] = view.seq_len - view.num_rows + min(tile.first + row, tile.num_rows - 1) / group;
    }
  }
  __device__ static int first_row_of_thread() {
    return static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }

  __device__ void start_scores(int i, float (&scores)[64]) const {
    const uint32_t k = shared_address(shared.k[i % kStages]);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < S::kHeadDim / 16; ++step) {
      const auto offset = static_cast<uint32_t>(step / 4 * S::kChunkBytes + step % 4 * 32);
      wgmma_scores<S::kBf16>(scores, wgmma_operand(q + offset), wgmma_operand(k + offset), step > 0);
    }
    wgmma_commit();
  }

  __device__ void start_values(int i, const uint32_t (&weights)[kTileKeys / 16][4],
                               float (&sums)[S::kHeadDim / 2]) const {
    const uint32_t v = shared_address(shared.v[i % kStages]);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
      wgmma_values<S::kBf16>(sums, weights[step],
                             transposed_operand(v + static_cast<uint32_t>(step * 2048), S::kChunkBytes));
    }
    wgmma_commit();
  }

  __device__ void mask(int key_tile, float (&scores)[64]) const {
    const int first_key = key_tile * kTileKeys;
    const int window = in.sliding_window;
    const bool all_seen =
        first_key + kTileKeys - 1 <= lowest_position && (window == 0 || first_key > tile.end_key - 1 - window);
    if (all_seen) return;
    const int key0 = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int j = 0; j < 64; ++j) {
      const int key = key0 + j / 4 * 8 + j % 2;
      const int p = position[j / 2 % 2];
      if (key > p || (window > 0 && key <= p - window)) scores[j] = -INFINITY;
    }
  }

  // Scores to weights, in place; returns what earlier sums are to be multiplied by.
  __device__ float2 softmax(float (&scores)[64]) {
    float correction[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float now = highest[i];
#pragma unroll
      for (int j = 0; j < 16; ++j) now = fmaxf(now, fmaxf(scores[4 * j + 2 * i], scores[4 * j + 2 * i + 1]));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
      const float base = now == -INFINITY ? 0.0f : now * scale[i];
      correction[i] = exp2_fast(highest[i] * scale[i] - base);
      highest[i] = now;
      const float shift = S::kBf16 ? -base : kF16WeightBits - base;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        for (int e = 4 * j + 2 * i; e < 4 * j + 2 * i + 2; ++e) {
          scores[e] = exp2_fast(fmaf(scores[e], scale[i], shift));
          sum += scores[e];
        }
      }
      total[i] = total[i] * correction[i] + sum;
    }
    return {correction[0], correction[1]};
  }

  __device__ static void pack(const float (&scores)[64], uint32_t (&weights)[kTileKeys / 16][4]) {
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
      for (int i = 0; i < 4; ++i) {
        weights[step][i] = pack_pair<S::kBf16>(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
      }
    }
  }

  // The warpgroups take turns to start multiplications, so that one multiplies while the other computes its softmax.
  __device__ static bool second() { return threadIdx.x >= 256; }
  __device__ static void wait_for_turn() { asm volatile("bar.sync %0, 256;" ::"r"(second() ? 3 : 2) : "memory"); }
  __device__ static void give_turn() { asm volatile("bar.arrive %0, 256;" ::"r"(second() ? 2 : 3) : "memory"); }

  // K (0) or V (1) of the i-th key tile.
  __device__ void wait_full(int i, int which) const {
    wait_barrier(&shared.full[i % kStages * 2 + which], i / kStages % 2);
  }
  __device__ void release(int i, int which) const {
    if (threadIdx.x % 32 == 0) arrive_barrier(&shared.empty[i % kStages * 2 + which]);
  }

  __device__ void run(float (&sums)[S::kHeadDim / 2]) {
    const int first_tile = tile.first_key / kTileKeys;
    const int count = (tile.end_key + kTileKeys - 1) / kTileKeys - first_tile;
    for (float& sum : sums) sum = 0.0f;
    float scores[64];
    uint32_t weights[kTileKeys / 16][4];
    wait_full(0, 0);
    start_scores(0, scores);
    wgmma_wait<0>();
    use_after_wait(scores);
    release(0, 0);
    mask(first_tile, scores);
    softmax(scores);
    pack(scores, weights);
    if (second() && count > 1) give_turn();  // the first begins
    for (int i = 1; i < count; ++i) {
      wait_full(i, 0);
      wait_for_turn();
      start_scores(i, scores);
      wait_full(i - 1, 1);
      start_values(i - 1, weights, sums);
      if (i + 1 < count || !second()) give_turn();
      wgmma_wait<1>();
      use_after_wait(scores);
      release(i, 0);
      mask(first_tile + i, scores);
      const float2 correction = softmax(scores);
      wgmma_wait<0>();
      use_after_wait(sums);
      release(i - 1, 1);
#pragma unroll
      for (int j = 0; j < S::kHeadDim / 2; ++j) sums[j] *= j / 2 % 2 == 0 ? correction.x : correction.y;
      pack(scores, weights);
    }
    wait_full(count - 1, 1);
    start_values(count - 1, weights, sums);
    wgmma_wait<0>();
    use_after_wait(sums);
  }

  __device__ void write(const AttentionOutput& output, const float (&sums)[S::kHeadDim / 2]) const {
    const int group = in.group;
    const int first = tile.first + (static_cast<int>(threadIdx.x) / 128 - 1) * 64 + first_row_of_thread();
    const float inverse_scale = output.quantized != nullptr && !output.dynamic ? 1.0f / *output.scale : 0.0f;
    for (int i = 0; i < 2; ++i) {
      float sum = total[i];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int r = first + 8 * i;
      if (r >= tile.num_rows) continue;
      const float factor = in.v_scale / sum;
      const int64_t t = in.query_start[tile.sequence] + r / group;
      const int column = (tile.kv_head * group + r % group) * S::kHeadDim + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
      for (int j = 0; j < S::kHeadDim / 8; ++j) {
        const float2 pair{sums[4 * j + 2 * i] * factor, sums[4 * j + 2 * i + 1] * factor};
        store_pair(output, t, column + 8 * j, pair, inverse_scale);
      }
    }
  }
};

template <class S>
__global__ void __launch_bounds__(kThreads, 1)
    prefill(const __grid_constant__ AttentionInput in, const __grid_constant__ AttentionOutput output,
            int max_decode_rows) {
  extern __shared__ __align__(1024) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<SharedMemory<S>*>(shared_bytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * kStages; ++i) {
      init_barrier(&shared.full[i], 2);
      init_barrier(&shared.empty[i], 4 * kConsumers);
    }
  }
  wait_for_previous();
  Tile tile;
  if (!find_tile(in, max_decode_rows, &shared.found, tile)) return;
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(S::kProducerRegisters));
    Producer<S>(in, tile, shared).run();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::kConsumerRegisters));
    load_queries(in, tile, shared);
    Consumer<S> consumer(in, tile, shared);
    float sums[S::kHeadDim / 2];
    consumer.run(sums);
    consumer.write(output, sums);
  }
}

constexpr int kQuantizeThreads = 256;

// Dynamic 8-bit rows of the sequences of more than max_decode_rows rows, from `out` as it was written. One row a CTA.
__global__ void __launch_bounds__(kQuantizeThreads)
    quantize_rows(const AttentionInput in, const AttentionOutput o, int max_decode_rows) {
  __shared__ int found;
  __shared__ float of_warps[kQuantizeThreads / 32];
  const int t = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int columns = in.num_heads * in.head_dim;
  wait_for_previous();
  start_next();
  const int s = sequence_of_row(in, t, &found);
  if (s < 0 || in.query_start[s + 1] - in.query_start[s] <= max_decode_rows) return;
  const auto value = [&](int i) {
    return o.out_f32 ? static_cast<const float*>(o.out)[t * o.out_stride + i]
                     : device_f32(static_cast<const BF16*>(o.out)[t * o.out_stride + i]);
  };
  float amax = 0.0f;
  for (int i = thread; i < columns; i += kQuantizeThreads) amax = fmaxf(amax, fabsf(value(i)));
  for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
  if (thread % 32 == 0) of_warps[thread / 32] = amax;
  __syncthreads();
  for (const float other : of_warps) amax = fmaxf(amax, other);
  const float scale = fmaxf(amax / kMaxF8E4M3, kMinTokenScale);
  if (thread == 0) o.scale[t] = scale;
  for (int i = 2 * thread; i < columns; i += 2 * kQuantizeThreads) {
    *reinterpret_cast<uint16_t*>(o.quantized + t * o.quantized_stride + i) =
        pack_e4m3({value(i) / scale, value(i + 1) / scale});
  }
}

constexpr std::string_view kName = "hopper.attention_prefill";

int64_t max_decode_rows(const PagedAttentionOp& op) { return kDecodeRows / (op.num_heads() / op.num_kv_heads()); }

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
  const int64_t tiles = op.q.dim(0) * group / kTileRows + op.num_sequences();
  allow_shared_bytes(prefill<S>, sizeof(SharedMemory<S>));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(tiles * op.num_kv_heads())),
                          .block = dim3(kThreads),
                          .shared_bytes = sizeof(SharedMemory<S>)};
  launch_kernel(kName, launch, shape, prefill<S>, attention_input(op), attention_output(op), decode_rows);
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
  if (!op.quantized.data || !op.quantized.format.dynamic) return;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(op.q.dim(0))), .block = dim3(kQuantizeThreads)};
  launch_kernel(kName, launch, shape, quantize_rows, attention_input(op), attention_output(op), decode_rows);
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
