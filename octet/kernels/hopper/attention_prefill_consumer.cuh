// How attention_prefill multiplies: queries, scores, softmax, values, and the result of a tile.
#pragma once

#include "octet/kernels/hopper/attention_prefill_tile.cuh"
#include "octet/kernels/hopper/attention_wgmma.cuh"

namespace octet::prefill {

// Of a tile's 128 rows.
__device__ inline int first_row_of_warpgroup() { return (static_cast<int>(threadIdx.x) / 128 - 1) * 64; }

// The queries of one multiplying warpgroup: its 64 rows of a tile, fetched while the tile before is multiplied. A row
// is brought by as many lanes as it has pieces of 16 bytes; rows beyond the sequence's are zeros.
template <class S>
struct TileQueries {
  static constexpr int kLanes = S::kHeadDim / 8;
  static constexpr int kRowsAtOnce = 128 / kLanes;

  const AttentionInput& in;
  SharedMemory<S>& shared;

  __device__ static int thread() { return static_cast<int>(threadIdx.x) % 128; }

  // Starts the copies of a tile's rows to buffer `buffer`.
  __device__ void fetch(const Tile& tile, int buffer) const {
    const int group = in.group;
    const int first_row = in.query_start[tile.sequence];
    const uint32_t to = shared_address(shared.q[buffer]);
    const int column = thread() % kLanes * 8;
#pragma unroll
    for (int i = 0; i < 64; i += kRowsAtOnce) {
      const int row = first_row_of_warpgroup() + i + thread() / kLanes;
      const int r = min(tile.first + row, tile.num_rows - 1);
      const int64_t offset =
          (first_row + r / group) * in.q_stride + (int64_t{tile.kv_head} * group + r % group) * S::kHeadDim + column;
      copy_async_16_or_zeros(to + place(row, thread() % kLanes), static_cast<const BF16*>(in.q) + offset,
                             tile.first + row < tile.num_rows);
    }
  }

  // Waits for the copies to buffer `buffer` and makes the rows ready to be multiplied: next to a cache of 8 bits as
  // f16, times a power of two. The warpgroup is then done with what it multiplied before.
  __device__ void settle(int buffer) const {
    commit_copies();
    wait_for_copies<0>();
    if constexpr (!S::kBf16) {
      const uint32_t at = shared_address(shared.q[buffer]);
#pragma unroll 4
      for (int i = 0; i < 64; i += kRowsAtOnce) {
        const int row = first_row_of_warpgroup() + i + thread() / kLanes;
        const uint32_t address = at + place(row, thread() % kLanes);
        const float inverse = to_f16(address);
        if (thread() % kLanes == 0) shared.q_scale[buffer][row] = inverse;
      }
    }
    fence_shared_for_wgmma();
    // Of this warpgroup alone.
    asm volatile("bar.sync %0, 128;" ::"r"(first_row_of_warpgroup() == 0 ? 1 : 4) : "memory");
  }

 private:
  // This thread's piece of a row, in place; returns what the row's scores are to be multiplied by.
  __device__ static float to_f16(uint32_t address) {
    const uint4 piece = load_shared_16(address);
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
    store_shared_16(address, make_uint4(words[0], words[1], words[2], words[3]));
    return scale.inverse;
  }
};

// One of the multiplying warpgroups: 64 rows of tile after tile. A thread has two of them, lane / 4 and lane / 4 + 8 of
// its warp's 16. All key tiles of all tiles are one sequence, numbered by g, in which the scores of one are multiplied
// beside the values of the one before, also where a tile ends.
template <class S>
struct Consumer {
  const AttentionInput& in;
  const AttentionOutput& output;
  SharedMemory<S>& shared;
  // Of the tile. There are few registers: whatever is needed now and then is computed again.
  int first_key_tile, end_key_tile;
  int first_unseen_key;  // of the warpgroup's first row: key tiles below it need no mask
  uint32_t q;            // this warpgroup's rows
  float highest[2];      // of the unscaled scores
  float total[2];        // this thread's columns

  // Its queries are in buffer `buffer`.
  __device__ void begin(const Tile& tile, int buffer) {
    first_key_tile = tile.first_key_tile();
    end_key_tile = first_key_tile + tile.num_key_tiles();
    q = shared_address(shared.q[buffer]) + static_cast<uint32_t>(first_row_of_warpgroup() * 128);
    first_unseen_key = in.sliding_window > 0 ? 0 : position_of(tile, first_row_of_warpgroup()) + 1;
    for (int i = 0; i < 2; ++i) {
      highest[i] = -INFINITY;
      total[i] = 0.0f;
    }
  }
  // Of the token of a tile's row; rows beyond the sequence's are as the last.
  __device__ int position_of(const Tile& tile, int row) const {
    return tile.seq_len - (tile.num_rows - 1 - min(tile.first + row, tile.num_rows - 1)) / in.group - 1;
  }
  // What scores of the thread's row i are multiplied by, to base-2 logarithms.
  __device__ float scale_of(int i, int buffer) const {
    const float scale = in.score_scale * kLog2e;
    if constexpr (S::kBf16) return scale;
    return scale * shared.q_scale[buffer][first_row_of_warpgroup() + first_row_of_thread() + 8 * i];
  }
  __device__ static int first_row_of_thread() {
    return static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }

  __device__ void start_scores(int g, float (&scores)[64]) const {
    const uint32_t k = shared_address(shared.k[g % kStages]);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < S::kHeadDim / 16; ++step) {
      const auto offset = static_cast<uint32_t>(step / 4 * S::kChunkBytes + step % 4 * 32);
      wgmma_scores<S::kBf16>(scores, wgmma_operand(q + offset), wgmma_operand(k + offset), step > 0);
    }
    wgmma_commit();
  }

  __device__ void start_values(int g, const uint32_t (&weights)[kTileKeys / 16][4],
                               float (&sums)[S::kHeadDim / 2]) const {
    const uint32_t v = shared_address(shared.v[g % kStages]);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
      wgmma_values<S::kBf16>(sums, weights[step],
                             transposed_operand(v + static_cast<uint32_t>(step * 2048), S::kChunkBytes));
    }
    wgmma_commit();
  }

  // Scores of keys that rows of tile x do not see.
  __device__ void mask(int x, int key_tile, float (&scores)[64]) const {
    const int first_key = key_tile * kTileKeys;
    if (first_key + kTileKeys <= first_unseen_key) return;
    const Tile tile = tile_at(in, shared.line, x);
    const int window = in.sliding_window;
    const int lowest = position_of(tile, first_row_of_warpgroup());
    if (first_key + kTileKeys - 1 <= lowest && first_key > tile.end_key - 1 - window) return;
    const int key0 = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
    int position[2];
    for (int i = 0; i < 2; ++i)
      position[i] = position_of(tile, first_row_of_warpgroup() + first_row_of_thread() + 8 * i);
#pragma unroll
    for (int j = 0; j < 64; ++j) {
      const int key = key0 + j / 4 * 8 + j % 2;
      const int p = position[j / 2 % 2];
      if (key > p || (window > 0 && key <= p - window)) scores[j] = -INFINITY;
    }
  }

  // Scores to weights, in place; returns what earlier sums are to be multiplied by.
  __device__ float2 softmax(int buffer, float (&scores)[64]) {
    float correction[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float scale = scale_of(i, buffer);
      float now = highest[i];
#pragma unroll
      for (int j = 0; j < 16; ++j) now = fmaxf(now, fmaxf(scores[4 * j + 2 * i], scores[4 * j + 2 * i + 1]));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
      const float base = now == -INFINITY ? 0.0f : now * scale;
      correction[i] = exp2_fast(highest[i] * scale - base);
      highest[i] = now;
      const float shift = S::kBf16 ? -base : kF16WeightBits - base;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        for (int e = 4 * j + 2 * i; e < 4 * j + 2 * i + 2; ++e) {
          scores[e] = exp2_fast(fmaf(scores[e], scale, shift));
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

  // K (0) or V (1) of key tile g.
  __device__ void wait_full(int g, int which) const {
    wait_barrier(&shared.full[g % kStages * 2 + which], g / kStages % 2);
  }
  __device__ void release(int g, int which) const {
    if (threadIdx.x % 32 == 0) arrive_barrier(&shared.empty[g % kStages * 2 + which]);
  }

  // Tiles from x on, which is on the line.
  __device__ void run(int x) {
    const TileQueries<S> queries{in, shared};
    queries.fetch(tile_at(in, shared.line, x), 0);
    float sums[S::kHeadDim / 2];
    float scores[64];
    uint32_t weights[kTileKeys / 16][4];
    for (float& sum : sums) sum = 0.0f;
    for (int turn = 0, g = 0;; ++turn) {
      const int next = shared.queue.read(turn);
      const bool ends = !shared.line.has_tile(in, next);
      queries.settle(turn % 2);
      if (!ends) queries.fetch(tile_at(in, shared.line, next), (turn + 1) % 2);
      keep_totals();  // of the tile before
      begin(tile_at(in, shared.line, x), turn % 2);
      if (turn == 0 && second() && !(ends && end_key_tile == first_key_tile + 1)) give_turn();  // the first begins
      for (int key_tile = first_key_tile; key_tile < end_key_tile; ++key_tile, ++g) {
        wait_full(g, 0);
        if (g > 0) wait_for_turn();
        start_scores(g, scores);
        if (g > 0) {
          wait_full(g - 1, 1);
          start_values(g - 1, weights, sums);
          if (!second() || !(ends && key_tile + 1 == end_key_tile)) give_turn();
          wgmma_wait<1>();
        } else {
          wgmma_wait<0>();
        }
        use_after_wait(scores);
        release(g, 0);
        mask(x, key_tile, scores);
        const float2 correction = softmax(turn % 2, scores);
        if (g > 0) {
          wgmma_wait<0>();
          use_after_wait(sums);
          release(g - 1, 1);
          if (key_tile == first_key_tile) {
            write(shared.before[threadIdx.x - 128], sums);
            shared.before[threadIdx.x - 128] = x;
            for (float& sum : sums) sum = 0.0f;
          } else {
#pragma unroll
            for (int j = 0; j < S::kHeadDim / 2; ++j) sums[j] *= j / 2 % 2 == 0 ? correction.x : correction.y;
          }
        }
        pack(scores, weights);
      }
      if (turn == 0) shared.before[threadIdx.x - 128] = x;
      x = next;
      if (!ends) continue;
      wait_full(g - 1, 1);
      start_values(g - 1, weights, sums);
      wgmma_wait<0>();
      use_after_wait(sums);
      keep_totals();
      write(shared.before[threadIdx.x - 128], sums);
      return;
    }
  }

  __device__ void keep_totals() const {
    for (int i = 0; i < 2; ++i) shared.totals[i][threadIdx.x - 128] = total[i];
  }

  // The result of tile x.
  __device__ void write(int x, const float (&sums)[S::kHeadDim / 2]) const {
    const Tile tile = tile_at(in, shared.line, x);
    const int group = in.group;
    const int first = tile.first + first_row_of_warpgroup() + first_row_of_thread();
    const bool quantizes = output.quantized != nullptr && !output.dynamic;
    for (int i = 0; i < 2; ++i) {
      float sum = shared.totals[i][threadIdx.x - 128];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int r = first + 8 * i;
      const bool exists = r < tile.num_rows;
      const float factor = __fdividef(in.v_scale, sum);
      const int64_t t = in.query_start[tile.sequence] + r / group;
      const int column = (tile.kv_head * group + r % group) * S::kHeadDim;
      if (!output.out_f32) write_bf16(t * output.out_stride + column, sums, i, factor, exists);
      if (!exists || (!output.out_f32 && !quantizes)) continue;
      const float inverse_scale = quantizes ? __frcp_rn(*output.scale) : 0.0f;
#pragma unroll
      for (int j = 0; j < S::kHeadDim / 8; ++j) {
        const float2 pair{sums[4 * j + 2 * i] * factor, sums[4 * j + 2 * i + 1] * factor};
        store_pair(output, t, column + 8 * j + static_cast<int>(threadIdx.x) % 4 * 2, pair, inverse_scale);
      }
    }
  }

  // The thread's row i from element `at` of `out` on, in pieces of 16 bytes: the four lanes that have a row exchange
  // their pairs, so that each has eight neighbours.
  __device__ void write_bf16(int64_t at, const float (&sums)[S::kHeadDim / 2], int i, float factor, bool exists) const {
    const int lane = static_cast<int>(threadIdx.x) % 4;
    auto* const to = static_cast<BF16*>(output.out) + at + lane * 8;
#pragma unroll
    for (int j = 0; j < S::kHeadDim / 8; j += 4) {
      uint32_t words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float* pair = &sums[4 * (j + k) + 2 * i];
        words[k] = pack_bf16({pair[0] * factor, pair[1] * factor});
      }
      exchange(words[0], words[1], lane % 2 != 0, 1);
      exchange(words[2], words[3], lane % 2 != 0, 1);
      exchange(words[0], words[2], lane / 2 != 0, 2);
      exchange(words[1], words[3], lane / 2 != 0, 2);
      if (exists) *reinterpret_cast<uint4*>(to + 8 * j) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
  // The upper lane's `low` against the lower lane's `high`, of two lanes `apart`.
  __device__ static void exchange(uint32_t& low, uint32_t& high, bool upper, int apart) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? low : high, apart);
    (upper ? low : high) = other;
  }
};

}  // namespace octet::prefill
