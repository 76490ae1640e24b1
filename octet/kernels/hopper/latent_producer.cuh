// The fetching warpgroup of attention_latent: tiles of 64 keys of 576 elements, through the block table, into a ring of
// two stages; 8-bit caches are widened to f16 on the way (exact). Keys that no row of the unit sees are zeros: their
// cells are not read.
#pragma once

#include "octet/kernels/hopper/attention_prefill.cuh"
#include "octet/kernels/hopper/latent_line.cuh"

namespace octet {

inline constexpr int kLatentStages = 2;
inline constexpr int kLatentChunks = kLatentKeyDim / 64;                    // of 128 bytes of 16-bit elements a row
inline constexpr int kLatentChunkBytes = 128 * kLatentKeys;                 // of all rows of a tile
inline constexpr int kLatentTileBytes = kLatentChunks * kLatentChunkBytes;  // of q, of keys
inline constexpr int kLatentProducers = 128;                                // threads
inline constexpr int kLatentConsumers = kLatentThreads - kLatentProducers;

struct LatentShared {
  alignas(1024) std::byte q[kLatentTileBytes];
  alignas(1024) std::byte keys[kLatentStages][kLatentTileBytes];
  alignas(1024) std::byte weights[128 * kLatentRows];
  int64_t cells[kLatentStages][kLatentKeys];  // where keys lie in the cache, in bytes; -1: unseen
  float q_scale[kLatentRows];
  float correction[kLatentRows];  // what sums so far are multiplied by
  float highest[kLatentRows];     // at the end of a piece: the highest score as a logarithm to base 2,
  float totals[kLatentRows];      // and the sum of the weights
  uint64_t full[kLatentStages];
  uint64_t empty[kLatentStages];
};

// Byte of 16-byte piece `piece` of 16-bit elements of row `row` in a tile.
__device__ inline uint32_t latent_place(int row, int piece) {
  return static_cast<uint32_t>(piece / 8 * kLatentChunkBytes + row * 128 + (piece % 8 ^ row % 8) * 16);
}

// The steps of all pieces of a stretch, one after the other.
class LatentSteps {
 public:
  __device__ LatentSteps(const AttentionInput& in, const LatentStretch& stretch) : cursor_(in, stretch) { enter(); }

  __device__ bool done() const { return cursor_.done(); }
  __device__ int sequence() const { return sequence_; }
  __device__ int first_key() const { return step_ * kLatentKeys; }
  __device__ int end_key() const { return end_key_; }
  __device__ void next() {
    if (++step_ < end_step_) return;
    cursor_.next();
    enter();
  }

 private:
  __device__ void enter() {
    if (cursor_.done()) return;
    const LatentPiece piece = cursor_.piece();
    sequence_ = piece.sequence;
    step_ = piece.first;
    end_step_ = piece.end;
    end_key_ = cursor_.end_key();
  }

  LatentCursor cursor_;
  int sequence_ = 0, step_ = 0, end_step_ = 0, end_key_ = 0;
};

// A thread brings every fourth 16-byte piece of a key of either half of a tile.
template <class T>
class LatentProducer {
 public:
  __device__ LatentProducer(const AttentionInput& in, const LatentStretch& stretch, LatentShared& shared)
      : in_(in),
        shared_(shared),
        steps_(in, stretch),
        block_shift_(log2_of(in.block_size)),
        row_(static_cast<int>(threadIdx.x) / kKeyThreads),
        part_(static_cast<int>(threadIdx.x) % kKeyThreads) {}

  __device__ void run() {
    if constexpr (sizeof(T) == 2) {
      for (int i = 0; !steps_.done(); ++i) {
        find_cells(i);
        wait_for_room(i);
        for (int half = 0; half < 2; ++half) copy(i, half);
        commit_copies();
        wait_for_copies<0>();
        announce(i);
      }
    } else {
      run_widening();
    }
  }

 private:
  static constexpr int kHalfKeys = kLatentKeys / 2;
  static constexpr int kKeyThreads = kLatentProducers / kHalfKeys;                                // of a key
  static constexpr int kPieces = kLatentKeyDim * static_cast<int>(sizeof(T)) / 16 / kKeyThreads;  // of a thread
  static_assert(kKeyThreads == 4);

  __device__ void wait_for_room(int i) {
    if (i >= kLatentStages) wait_barrier(&shared_.empty[i % kLatentStages], (i / kLatentStages - 1) % 2);
  }
  __device__ void announce(int i) {
    fence_shared_for_wgmma();
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_barrier(&shared_.full[i % kLatentStages]);
  }
  __device__ uint32_t stage(int i) const { return shared_address(shared_.keys[i % kLatentStages]); }

  // Where tile i's keys lie: the next step's.
  __device__ void find_cells(int i) {
    if (threadIdx.x < kLatentKeys) {
      const int key = steps_.first_key() + static_cast<int>(threadIdx.x);
      int64_t cell = -1;
      if (key < steps_.end_key()) {
        const int64_t block = in_.block_table[steps_.sequence() * in_.table_stride + (key >> block_shift_)];
        cell = (block * in_.k_block_stride + int64_t{key & (in_.block_size - 1)} * kLatentKeyDim) *
               static_cast<int64_t>(sizeof(T));
      }
      shared_.cells[i % kLatentStages][threadIdx.x] = cell;
    }
    steps_.next();
    asm volatile("bar.sync 4, %0;" ::"n"(kLatentProducers) : "memory");
  }
  // The thread's first piece of its key of half a tile; null: the key is not seen.
  __device__ const std::byte* source(int i, int half) const {
    const int64_t cell = shared_.cells[i % kLatentStages][half * kHalfKeys + row_];
    return cell < 0 ? nullptr : static_cast<const std::byte*>(in_.k_cache) + cell + part_ * 16;
  }

  __device__ void copy(int i, int half) const {
    const std::byte* from = source(i, half);
    const bool seen = from != nullptr;
    if (!seen) from = static_cast<const std::byte*>(in_.k_cache);
    const int row = half * kHalfKeys + row_;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      const auto chunk = static_cast<uint32_t>(j / 2 * kLatentChunkBytes);
      copy_async_16_or_zeros(stage(i) + latent_place(row, j % 2 * kKeyThreads + part_) + chunk,
                             from + (seen ? j * kKeyThreads * 16 : 0), seen);
    }
  }

  // A register is widened and at once filled with what comes half a tile later.
  __device__ void run_widening() {
    uint4 pieces[kPieces];
    find_cells(0);
    const std::byte* from = source(0, 0);
#pragma unroll
    for (int j = 0; j < kPieces; ++j) pieces[j] = load(from, j);
    bool more = true;
    for (int h = 0; more; ++h) {
      const int i = h / 2;
      if (h % 2 == 1) {
        more = !steps_.done();
        if (more) find_cells(i + 1);
      } else {
        wait_for_room(i);
      }
      from = more ? source((h + 1) / 2, (h + 1) % 2) : nullptr;
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        const uint4 piece = pieces[j];
        pieces[j] = load(from, j);
        store(stage(i), h % 2 * kHalfKeys + row_, j, piece);
      }
      if (h % 2 == 1) announce(i);
    }
  }
  __device__ static uint4 load(const std::byte* from, int j) {
    if (from == nullptr) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(from + j * kKeyThreads * 16);
  }
  // 16 elements as f16 are two pieces, those of a key's threads one chunk. Eight threads have two rows, whose pieces
  // meet no bank twice.
  __device__ void store(uint32_t to, int row, int j, const uint4& piece) const {
    const auto chunk = static_cast<uint32_t>(j * kLatentChunkBytes);
    store_shared_16(to + latent_place(row, 2 * part_) + chunk, widen(piece.x, piece.y));
    store_shared_16(to + latent_place(row, 2 * part_ + 1) + chunk, widen(piece.z, piece.w));
  }
  __device__ static uint4 widen(uint32_t first, uint32_t second) {
    return make_uint4(e4m3_to_f16(static_cast<uint16_t>(first)), e4m3_to_f16(static_cast<uint16_t>(first >> 16)),
                      e4m3_to_f16(static_cast<uint16_t>(second)), e4m3_to_f16(static_cast<uint16_t>(second >> 16)));
  }

  const AttentionInput& in_;
  LatentShared& shared_;
  LatentSteps steps_;
  int block_shift_;
  int row_, part_;
};

}  // namespace octet
