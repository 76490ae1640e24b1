// The tiles of attention_prefill: which rows a CTA multiplies with which keys, and the shared memory it does it in.
//
// The tiles of a batch lie on a line, sequence by sequence, those with the most keys first, a KV head after the other.
// A CTA that is done takes the next one (TileQueue), so that all end together whatever the lengths are.
#pragma once

#include "octet/kernels/hopper/attention_line.cuh"
#include "octet/kernels/hopper/attention_prefill.cuh"

namespace octet::prefill {

inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = 128 * (kConsumers + 1);
inline constexpr int kTileRows = 64 * kConsumers;
inline constexpr int kTileKeys = 128;
inline constexpr int kStages = 2;
constexpr int kDecodeRows = 16;  // (new tokens x heads of the group) of a sequence that attention_decode makes

template <class T, int kDim>
struct PrefillShape {
  using Element = T;
  static constexpr bool kBf16 = sizeof(T) == 2;
  static constexpr int kHeadDim = kDim;
  static constexpr int kChunks = kDim / 64;            // of 128 bytes of 16-bit elements a row
  static constexpr int kChunkBytes = 128 * kTileKeys;  // of all keys (or rows of q)
  static constexpr int kTileBytes = kChunks * kChunkBytes;
  static constexpr int kProducerRegisters = 88;  // with those of two consumers what the kernel starts with, 3 * 168
  static constexpr int kConsumerRegisters = 208;
  static constexpr int kPieces = kDim * static_cast<int>(sizeof(T)) / 16;  // of 16 bytes of a key in the cache
};

// Sequences of at most max_decode_rows rows have no tiles.
struct TileLine : SequenceLine<kThreads, kMaxSequences> {
  __device__ void make(const AttentionInput& in, int max_decode_rows) {
    lay_out(in.num_sequences, [&](int s) {
      const int rows = in.query_start[s + 1] - in.query_start[s];
      if (rows <= max_decode_rows) return int2{0, 0};
      return int2{(rows * in.group + kTileRows - 1) / kTileRows * in.num_kv_heads, 0};
    });
  }
  __device__ bool has_tile(const AttentionInput& in, int x) const { return x < line_start[in.num_sequences]; }
};

// Which tiles the CTA makes: first that of its own number, then the next one that no CTA has taken, by a counter of the
// workspace. One thread takes tiles, one ahead; every warp reads each of them.
struct TileQueue {
  static constexpr int kSlots = 2;
  static constexpr int kReaders = kThreads / 32;

  int tiles[kSlots];
  uint64_t full[kSlots], empty[kSlots];

  __device__ void init() {
    for (int i = 0; i < kSlots; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], kReaders);
    }
  }
  // By one thread, in order: its `turn`-th tile, counted from 0, after the CTA's first.
  __device__ void take(int turn, int32_t* counters) {
    const int slot = turn % kSlots;
    if (turn >= kSlots) wait_barrier(&empty[slot], (turn / kSlots - 1) % 2);
    tiles[slot] = static_cast<int>(gridDim.x) + atomicAdd(&counters[0], 1);
    arrive_barrier(&full[slot]);
  }
  // By every warp.
  __device__ int read(int turn) {
    const int slot = turn % kSlots;
    wait_barrier(&full[slot], turn / kSlots % 2);
    const int tile = *static_cast<volatile int*>(&tiles[slot]);
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_barrier(&empty[slot]);
    return tile;
  }
  // By one thread, once the CTA takes no more: the last CTA leaves the counters as they were.
  __device__ static void finish(int32_t* counters) {
    auto* const done = reinterpret_cast<unsigned*>(&counters[1]);
    if (atomicInc(done, gridDim.x - 1) == gridDim.x - 1) counters[0] = 0;
  }
};

template <class S>
struct SharedMemory {
  alignas(1024) std::byte q[2][S::kTileBytes];  // of this tile and the next
  alignas(1024) std::byte k[kStages][S::kTileBytes];
  alignas(1024) std::byte v[kStages][S::kTileBytes];
  float q_scale[2][kTileRows];
  // For want of registers, every multiplying thread's sums of weights of its two rows, and the tile that they are of.
  float totals[2][128 * kConsumers];
  int before[128 * kConsumers];
  uint64_t full[2 * kStages];  // K and V of stage 0, of stage 1
  uint64_t empty[2 * kStages];
  TileLine line;
  TileQueue queue;
};

// Byte of 16-byte piece `piece` of 16-bit elements of row `row` in a tile.
__device__ uint32_t place(int row, int piece) {
  return static_cast<uint32_t>(piece / 8 * 128 * kTileKeys + row * 128 + (piece % 8 ^ row % 8) * 16);
}

struct Tile {
  int sequence;
  int kv_head;
  int first;               // row of (new tokens x heads of the group)
  int num_rows;            // of them in the sequence
  int first_key, end_key;  // that some row of the tile sees
  int seq_len;

  __device__ int first_key_tile() const { return first_key / kTileKeys; }
  __device__ int num_key_tiles() const { return (end_key + kTileKeys - 1) / kTileKeys - first_key_tile(); }
};

// Tile x of the line, which has it.
__device__ inline Tile tile_at(const AttentionInput& in, const TileLine& line, int x) {
  Tile tile;
  tile.sequence = line.sequence_at(in.num_sequences, x);
  const SequenceView view(in, tile.sequence);
  const int group = in.group;
  tile.seq_len = view.seq_len;
  tile.num_rows = view.num_rows * group;
  const int from_last = (x - line.line_start[tile.sequence]) / in.num_kv_heads;
  tile.kv_head = (x - line.line_start[tile.sequence]) % in.num_kv_heads;
  tile.first = ((tile.num_rows - 1) / kTileRows - from_last) * kTileRows;
  const int first_position = view.seq_len - view.num_rows + tile.first / group;
  const int last_row = min(tile.first + kTileRows, tile.num_rows) - 1;
  tile.end_key = view.seq_len - view.num_rows + last_row / group + 1;
  tile.first_key = in.sliding_window > 0 ? max(0, first_position - in.sliding_window + 1) : 0;
  return tile;
}

}  // namespace octet::prefill
