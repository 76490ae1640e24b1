// How keys and values of attention_prefill come to shared memory, through the block table.
#pragma once

#include "octet/kernels/hopper/attention_prefill_tile.cuh"

namespace octet::prefill {

// The fetching warpgroup: two warps bring K, two V. A thread brings one 16-byte piece of kPieces consecutive keys,
// which lie in one block, of either half of every tile of keys. Blocks are looked up ahead: from the table through the
// block to shared memory would take longer than a tile is multiplied.
template <class S>
class Producer {
 public:
  // Begins with tile x, which is on the line.
  __device__ Producer(const AttentionInput& in, SharedMemory<S>& shared, int32_t* counters, int x)
      : in_(in), shared_(shared), counters_(counters), block_shift_(log2_of(in.block_size)) {
    begin_tile(x);
  }

  // What the table says is kept where it arrives until it is used: to move it would be to wait for it.
  __device__ void run() {
    if constexpr (S::kBf16) {
      Keys halves[2] = {next_half(), next_half()};
      for (int i = 0; halves[0].exist(); ++i) {
        wait_for_room(i);
#pragma unroll
        for (int half = 0; half < 2; ++half) copy(halves[half], half * (kTileKeys / 2) + first(), buffer(i));
        commit_copies();
#pragma unroll
        for (Keys& half : halves) half = next_half();
        wait_for_copies<0>();
        announce(i);
      }
    } else {
      Keys next = next_half();
      uint4 pieces[S::kPieces];
      load(next, pieces);
      next = next_half();
      bool ends = false;
      for (int half = 0; !ends; ++half) {
        if (half % 2 == 0) wait_for_room(half / 2);
        widen_and_load(pieces, half % 2 * (kTileKeys / 2) + first(), buffer(half / 2), next);
        ends = !next.exist();
        next = next_half();
        if (half % 2 == 1) announce(half / 2);
      }
    }
  }

 private:
  // The thread's keys of half a tile.
  struct Keys {
    int block;       // -1: there are none
    int first;       // of the thread's pieces, in its block, in elements
    int begin, end;  // of those that are seen, counted from the first

    __device__ bool exist() const { return block >= 0; }
  };

  // Of the thread; not kept in registers, which are few. K (0) or V (1), its piece of a key, its first key of a half.
  __device__ static int which() { return static_cast<int>(threadIdx.x) / 64; }
  __device__ static int piece() { return static_cast<int>(threadIdx.x) % 64 % S::kPieces; }
  __device__ static int first() { return static_cast<int>(threadIdx.x) % 64 / S::kPieces * S::kPieces; }

  __device__ void begin_tile(int x) {
    if (threadIdx.x == 0) shared_.queue.take(turn_, counters_);
    const Tile tile = tile_at(in_, shared_.line, x);
    first_key_ = tile.first_key;
    end_key_ = tile.end_key;
    key_ = tile.first_key_tile() * kTileKeys;
    end_of_tile_ = key_ + tile.num_key_tiles() * kTileKeys;
    table_ = in_.block_table + tile.sequence * in_.table_stride;
    first_cell_ = tile.kv_head * in_.block_size;
  }

  // The half after the last, whose block is asked for.
  __device__ Keys next_half() {
    if (key_ == end_of_tile_) {
      if (ended_) return {.block = -1, .first = 0, .begin = 0, .end = 0};
      const int x = shared_.queue.read(turn_++);
      ended_ = !shared_.line.has_tile(in_, x);
      if (ended_) return {.block = -1, .first = 0, .begin = 0, .end = 0};
      begin_tile(x);
    }
    const int key = key_ + first();
    key_ += kTileKeys / 2;
    Keys keys{.block = 0,
              .first = (first_cell_ + (key & (in_.block_size - 1))) * S::kHeadDim,
              .begin = max(first_key_ - key, 0),
              .end = min(end_key_ - key, S::kPieces)};
    if (keys.begin < keys.end) keys.block = table_[key >> block_shift_];
    return keys;
  }

  __device__ void wait_for_room(int i) const {
    if (i >= kStages) wait_barrier(&shared_.empty[i % kStages * 2 + which()], (i / kStages - 1) % 2);
  }
  __device__ void announce(int i) const {
    fence_shared_for_wgmma();
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_barrier(&shared_.full[i % kStages * 2 + which()]);
  }
  __device__ uint32_t buffer(int i) const {
    return shared_address(which() == 0 ? shared_.k[i % kStages] : shared_.v[i % kStages]);
  }

  __device__ const std::byte* source(const Keys& keys) const {
    const auto* cache = static_cast<const typename S::Element*>(which() == 0 ? in_.k_cache : in_.v_cache);
    const int64_t stride = which() == 0 ? in_.k_block_stride : in_.v_block_stride;
    return reinterpret_cast<const std::byte*>(cache + max(keys.block, 0) * stride + keys.first) + piece() * 16;
  }

  __device__ void copy(const Keys& keys, int row, uint32_t to) const {
    const std::byte* from = source(keys);
#pragma unroll
    for (int j = 0; j < S::kPieces; ++j) {
      const bool wanted = j >= keys.begin && j < keys.end;
      copy_async_16_or_zeros(to + place(row + j, piece()), wanted ? from + j * S::kHeadDim * 2 : from, wanted);
    }
  }

  __device__ static uint4 load(const Keys& keys, const std::byte* from, int j) {
    if (j < keys.begin || j >= keys.end) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(from + j * S::kHeadDim);
  }
  __device__ void load(const Keys& keys, uint4 (&pieces)[S::kPieces]) const {
    const std::byte* from = source(keys);
#pragma unroll
    for (int j = 0; j < S::kPieces; ++j) pieces[j] = load(keys, from, j);
  }

  // A register is widened and at once filled with what comes half a tile later.
  __device__ void widen_and_load(uint4 (&pieces)[S::kPieces], int row, uint32_t to, const Keys& ahead) const {
    const std::byte* from = source(ahead);
#pragma unroll
    for (int j = 0; j < S::kPieces; ++j) {
      const uint4 words = pieces[j];
      pieces[j] = load(ahead, from, j);
      store(to, row + j, words);
    }
  }

  // 16 elements as f16 are two pieces; threads of the upper half of a row store them in the other order, so that eight
  // of a row meet no bank twice.
  __device__ static void store(uint32_t to, int row, const uint4& words) {
    const bool swapped = piece() >= S::kPieces / 2;
    const uint4 low = widen(words.x, words.y);
    const uint4 high = widen(words.z, words.w);
    store_shared_16(to + place(row, 2 * piece() + (swapped ? 1 : 0)), swapped ? high : low);
    store_shared_16(to + place(row, 2 * piece() + (swapped ? 0 : 1)), swapped ? low : high);
  }
  __device__ static uint4 widen(uint32_t first, uint32_t second) {
    return make_uint4(e4m3_to_f16(static_cast<uint16_t>(first)), e4m3_to_f16(static_cast<uint16_t>(first >> 16)),
                      e4m3_to_f16(static_cast<uint16_t>(second)), e4m3_to_f16(static_cast<uint16_t>(second >> 16)));
  }

  const AttentionInput& in_;
  SharedMemory<S>& shared_;
  int32_t* counters_;
  int block_shift_;
  int turn_ = 0;
  bool ended_ = false;
  // Of the tile:
  const int32_t* table_ = nullptr;  // of its sequence
  int first_key_ = 0, end_key_ = 0;
  int key_ = 0, end_of_tile_ = 0;
  int first_cell_ = 0;  // of its KV head in a block
};

}  // namespace octet::prefill
