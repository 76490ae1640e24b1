// How a few query rows attend to the keys of a split: what attention_decode and rope_attention_decode are made of.
//
// Keys are the rows and queries the columns of both products, on mma.m16n8k16: 8 columns hold all query heads that
// share a KV head, so nothing of the cache is read twice. S^T = K Q^T and O^T += V^T P^T. Every warp streams steps of
// 16 keys of its own through its own ring in shared memory (attention_stream.cuh), with its own softmax; the warps of a
// CTA meet at the end of a task. 8-bit caches are widened to f16, which holds them exactly; q is then f16 too, scaled
// per row by a power of two so that its largest element lies in [128, 256), and weights are kept times 2^8, so that
// nothing of weight is lost below f16's range.
//
// The order of the 16-byte chunks of a key's row in shared memory is permuted by the row so that all reads are free of
// bank conflicts. Head dimensions are permuted where only sums over them are needed (q . k), or where the result says
// where it lies (V of 8 bits).
#pragma once

#include <algorithm>

#include "octet/kernels/hopper/attention_plan.cuh"
#include "octet/kernels/hopper/warp_mma.cuh"

namespace octet {

inline constexpr int kSplitThreads = 128;
inline constexpr int kSplitWarps = kSplitThreads / 32;
inline constexpr int kStepKeys = 16;

// kOtherBytes: what the kernel keeps in shared memory besides the rings and, with kMerges, the results of the warps.
template <class T, int kDim, int kBlocks, int kOtherBytes, bool kMerges>
struct DecodeShape {
  using Element = T;
  static constexpr int kHeadDim = kDim;
  static constexpr int kQueryBlocks = kBlocks;  // of 8 columns
  static constexpr bool kBf16 = sizeof(T) == 2;
  static constexpr int kQueries = 8 * kQueryBlocks;
  static constexpr int kRowBytes = kHeadDim * static_cast<int>(sizeof(T));
  static constexpr int kRowChunks = kRowBytes / 16;
  static constexpr int kChunkElements = 16 / static_cast<int>(sizeof(T));
  static constexpr int kTileBytes = kStepKeys * kRowBytes;        // K or V of a step
  static constexpr int kLaneChunks = kRowBytes / 64;              // of a key's row, held by the four lanes of its group
  static constexpr int kDots = kHeadDim / 16;                     // mma steps of q . k
  static constexpr int kTiles = kHeadDim / 16;                    // mma tiles of O^T
  static constexpr int kMergePasses = kTileBytes < 4096 ? 1 : 2;  // at the end of a task: parts of O in shared memory
  static constexpr int kPassTiles = kTiles / kMergePasses;
  static constexpr int kMergeVectors = kPassTiles * kQueryBlocks * 32;  // of 16 bytes, of a warp and pass
  static constexpr int kFixedBytes = (kMerges ? kSplitWarps * (kMergeVectors * 16 + kQueries * 8) : 0) + kOtherBytes;
  // Widening takes time: three CTAs hide it.
  static constexpr int kCtasPerSm = kTileBytes < 4096 && kQueryBlocks == 1 ? 3 : kTileBytes <= 4096 ? 2 : 1;
  static constexpr int kMaxSharedBytes = (kCtasPerSm == 3 ? 75 : kCtasPerSm == 2 ? 113 : 226) << 10;
  static constexpr int kStages = std::min(8, (kMaxSharedBytes - kFixedBytes) / (2 * kTileBytes * kSplitWarps));
  static constexpr int kRingBytes = kStages * 2 * kTileBytes;
  static_assert(kStages >= 2);
  // A stage is fetched into as soon as it is used, unless the registers for that are missing: then a step later.
  static constexpr bool kFetchesAtOnce = !kBf16 || kHeadDim < 256;
  static constexpr int kInFlight = kFetchesAtOnce ? kStages : kStages - 1;

  // Byte of 16-byte chunk `chunk` of key `row` in a tile.
  __device__ static uint32_t place(int row, int chunk) {
    const int mixed = kRowChunks == 4 ? chunk ^ (row / 2 % 4) : chunk ^ (row % 8);
    return static_cast<uint32_t>(row * kRowBytes + mixed * 16);
  }
  // The j-th chunk of a row that lane group member c holds.
  __device__ static int chunk_of_lane(int c, int j) { return kRowChunks == 4 ? c : 2 * c + j % 2 + j / 2 * 8; }
};

// Two of four 8-bit elements as f16.
__device__ inline uint32_t e4m3_low(uint32_t word) { return e4m3_to_f16(static_cast<uint16_t>(word)); }
__device__ inline uint32_t e4m3_high(uint32_t word) { return e4m3_to_f16(static_cast<uint16_t>(word >> 16)); }

// The queries of a task as B operand, and what each lane needs of its two columns of every query block.
template <class S>
struct Queries {
  uint32_t fragments[S::kDots][S::kQueryBlocks][2];
  float scale[S::kQueryBlocks][2];  // of a score, to base-2 logarithms
  int last[S::kQueryBlocks][2];     // the column's own position: the last key that it sees
  int row[S::kQueryBlocks][2];      // the column's row of the sequence; -1: none
  int head[S::kQueryBlocks][2];

  // Column q of the block is row first + q of (new tokens x heads of the group), which lies at row_of(first + q).
  // Columns beyond the rows are zeros.
  template <class RowOf>
  __device__ void load(const AttentionInput& in, const SequenceView& view, int kv_head, int first, RowOf row_of) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int num_rows = view.num_rows * in.group;
#pragma unroll
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      const int own = first + nb * 8 + lane / 4;
      const bool valid = own < num_rows;
      const float inverse = load_column(row_of(valid ? own : 0), valid, lane % 4, nb);
      for (int i = 0; i < 2; ++i) {
        const int column = lane % 4 * 2 + i;
        scale[nb][i] = __shfl_sync(0xffffffffu, inverse, column * 4) * in.score_scale * kLog2e;
        const int of_column = first + nb * 8 + column;
        row[nb][i] = of_column < num_rows ? of_column / in.group : -1;
        head[nb][i] = kv_head * in.group + of_column % in.group;
        last[nb][i] = row[nb][i] < 0 ? view.seq_len - 1 : view.seq_len - view.num_rows + row[nb][i];
      }
    }
  }

 private:
  // This lane's quarter of a row; returns what its scores are to be multiplied by.
  __device__ float load_column(const BF16* q, bool valid, int c, int nb) {
    constexpr int kPieces = S::kChunkElements / 8;
    uint4 parts[S::kLaneChunks][kPieces];
    float amax = 0.0f;
#pragma unroll
    for (int j = 0; j < S::kLaneChunks; ++j) {
      for (int i = 0; i < kPieces; ++i) {
        parts[j][i] = make_uint4(0, 0, 0, 0);
        if (valid)
          parts[j][i] = *reinterpret_cast<const uint4*>(q + S::chunk_of_lane(c, j) * S::kChunkElements + i * 8);
        const uint32_t words[4] = {parts[j][i].x, parts[j][i].y, parts[j][i].z, parts[j][i].w};
        for (const uint32_t word : words) {
          amax = fmaxf(amax, fmaxf(fabsf(low_f32(word)), fabsf(high_f32(word))));
        }
      }
    }
    float factor = 1.0f;
    float inverse = 1.0f;
    if constexpr (!S::kBf16) {
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, 1));
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, 2));
      const PowerOfTwo scale_of_row = f16_scale(amax);
      factor = scale_of_row.factor;
      inverse = scale_of_row.inverse;
    }
#pragma unroll
    for (int j = 0; j < S::kLaneChunks; ++j) {
      for (int i = 0; i < kPieces; ++i) {
        const uint32_t words[4] = {parts[j][i].x, parts[j][i].y, parts[j][i].z, parts[j][i].w};
        for (int w = 0; w < 4; ++w) {
          const int pair = (j * kPieces + i) * 4 + w;
          const uint32_t word =
              S::kBf16 ? words[w] : pack_pair<false>(low_f32(words[w]) * factor, high_f32(words[w]) * factor);
          fragments[pair / 2][nb][pair % 2] = word;
        }
      }
    }
    return inverse;
  }
  __device__ static float low_f32(uint32_t pair) { return __uint_as_float(pair << 16); }
  __device__ static float high_f32(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
};

// What a lane multiplies of a step, read from shared memory before the arithmetic begins: its chunks of two rows of K,
// and, of an 8-bit cache, of four rows of V. (V of 16 bits is transposed on the way to registers, when its turn comes.)
template <class S>
struct StepWords {
  static constexpr int kValueParts = S::kBf16 ? 0 : S::kHeadDim / (S::kRowBytes == 64 ? 64 : 128);
  static constexpr int kValueWords = S::kRowBytes == 64 ? 2 : 4;  // of a row of V in one part
  uint32_t k[S::kLaneChunks][2][4];
  uint32_t v[kValueParts + 1][4][kValueWords];  // the last is not used

  __device__ explicit StepWords(uint32_t tile) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int g = lane / 4;
#pragma unroll
    for (int j = 0; j < S::kLaneChunks; ++j) {
      for (int i = 0; i < 2; ++i) load(tile + S::place(g + 8 * i, S::chunk_of_lane(lane % 4, j)), k[j][i]);
    }
    // Group g holds a chunk of 16 dimensions of its four keys, half of one at head_dim 64.
#pragma unroll
    for (int part = 0; part < kValueParts; ++part) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane % 4 * 2 + i % 2 + i / 2 * 8;
        const uint32_t chunk = tile + S::kTileBytes + S::place(row, kValueWords == 2 ? g / 2 : g + 8 * part);
        load(kValueWords == 2 ? chunk + static_cast<uint32_t>(g % 2 * 8) : chunk, v[part][i]);
      }
    }
  }

 private:
  __device__ static void load(uint32_t address, uint32_t (&words)[4]) {
    const uint4 loaded = load_shared_16(address);
    words[0] = loaded.x;
    words[1] = loaded.y;
    words[2] = loaded.z;
    words[3] = loaded.w;
  }
  __device__ static void load(uint32_t address, uint32_t (&words)[2]) {
    const uint2 loaded = load_shared_8(address);
    words[0] = loaded.x;
    words[1] = loaded.y;
  }
};

// The running softmax of one warp over the keys it has seen, for its lane's two columns of every query block.
template <class S>
struct Softmax {
  float highest[S::kQueryBlocks][2];
  float total[S::kQueryBlocks][2];  // this lane's keys
  float sums[S::kTiles][S::kQueryBlocks][4];

  __device__ void clear() {
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 2; ++i) {
        highest[nb][i] = -INFINITY;
        total[nb][i] = 0.0f;
      }
      for (int t = 0; t < S::kTiles; ++t) {
        for (float& sum : sums[t][nb]) sum = 0.0f;
      }
    }
  }

  // One step: keys key .. key + 15, whose K and V lie at `tile`.
  __device__ void add_step(const Queries<S>& queries, const AttentionInput& in, const SequenceView& view, int key,
                           const StepWords<S>& words, uint32_t tile) {
    float scores[S::kQueryBlocks][4];
    make_scores(queries, words, scores);
    scale_and_mask(queries, in, view, key, scores);
    uint32_t weights[S::kQueryBlocks][2];
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) make_weights(nb, scores[nb], weights[nb]);
    if constexpr (S::kBf16) {
      add_values_16(tile + S::kTileBytes, weights);
    } else {
      add_values_8(words, weights);
    }
  }

 private:
  __device__ static void make_scores(const Queries<S>& queries, const StepWords<S>& words,
                                     float (&scores)[S::kQueryBlocks][4]) {
    float odd[S::kQueryBlocks][4];
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 4; ++i) scores[nb][i] = odd[nb][i] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < S::kLaneChunks; ++j) {
      constexpr int kSteps = S::kBf16 ? 2 : 4;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        uint32_t a[4];
        for (int r = 0; r < 2; ++r) {
          a[r] = S::kBf16 ? words.k[j][r][2 * i % 4] : e4m3_low(words.k[j][r][i]);
          a[r + 2] = S::kBf16 ? words.k[j][r][(2 * i + 1) % 4] : e4m3_high(words.k[j][r][i]);
        }
        const int dot = j * kSteps + i;
        for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
          mma_16x8x16<S::kBf16>(dot % 2 == 0 ? scores[nb] : odd[nb], a, queries.fragments[dot][nb]);
        }
      }
    }
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 4; ++i) scores[nb][i] += odd[nb][i];
    }
  }

  __device__ static void scale_and_mask(const Queries<S>& queries, const AttentionInput& in, const SequenceView& view,
                                        int key, float (&scores)[S::kQueryBlocks][4]) {
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 4; ++i) scores[nb][i] *= queries.scale[nb][i % 2];
    }
    const int first_seen_by_all = in.sliding_window > 0 ? view.seq_len - in.sliding_window : 0;
    if (key >= first_seen_by_all && key + kStepKeys <= view.seq_len - view.num_rows + 1) return;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 4; ++i) {
        const int of_score = key + lane / 4 + i / 2 * 8;
        const int last = queries.last[nb][i % 2];
        const bool seen = of_score <= last && (in.sliding_window == 0 || of_score > last - in.sliding_window);
        if (!seen) scores[nb][i] = -INFINITY;
      }
    }
  }

  // Scores to weights relative to the new highest score, as B operand; rescales what was summed before.
  __device__ void make_weights(int nb, const float (&scores)[4], uint32_t (&weights)[2]) {
    float correction[2];
    float p[4];
    for (int i = 0; i < 2; ++i) {
      float now = fmaxf(highest[nb][i], fmaxf(scores[i], scores[i + 2]));
      for (int step = 4; step < 32; step *= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, step));
      const float base = now == -INFINITY ? 0.0f : now;
      correction[i] = exp2_fast(highest[nb][i] - base);
      highest[nb][i] = now;
      const float shifted = S::kBf16 ? base : base - kF16WeightBits;
      p[i] = exp2_fast(scores[i] - shifted);
      p[i + 2] = exp2_fast(scores[i + 2] - shifted);
      total[nb][i] = total[nb][i] * correction[i] + (p[i] + p[i + 2]);
    }
    weights[0] = transpose_8x8(pack_pair<S::kBf16>(p[0], p[1]));
    weights[1] = transpose_8x8(pack_pair<S::kBf16>(p[2], p[3]));
    // Most steps hold no new highest score; multiplying by 1 would change nothing.
    if (!__any_sync(0xffffffffu, correction[0] != 1.0f || correction[1] != 1.0f)) return;
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      for (int i = 0; i < 4; ++i) sums[t][nb][i] *= correction[i % 2];
    }
  }

  __device__ void add_values_16(uint32_t v, const uint32_t (&weights)[S::kQueryBlocks][2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = lane % 8 + lane / 16 * 8;
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      uint32_t a[4];
      load_transposed(a, v + S::place(row, 2 * t + lane / 8 % 2));
      for (int nb = 0; nb < S::kQueryBlocks; ++nb) mma_16x8x16<S::kBf16>(sums[t][nb], a, weights[nb]);
    }
  }

  // Of a pair of dimensions the first goes to row g of the tile, the second to row g + 8.
  __device__ void add_values_8(const StepWords<S>& words, const uint32_t (&weights)[S::kQueryBlocks][2]) {
    constexpr int kWords = StepWords<S>::kValueWords;
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      const uint32_t(&v)[4][kWords] = words.v[t / (2 * kWords)];
      const int w = t / 2 % kWords;
      const uint32_t select = t % 2 == 0 ? 0x5140 : 0x7362;  // bytes 0, 1 (2, 3) of two keys, paired by dimension
      const uint32_t early = __byte_perm(v[0][w], v[1][w], select);
      const uint32_t late = __byte_perm(v[2][w], v[3][w], select);
      const uint32_t a[4] = {e4m3_low(early), e4m3_high(early), e4m3_low(late), e4m3_high(late)};
      for (int nb = 0; nb < S::kQueryBlocks; ++nb) mma_16x8x16<S::kBf16>(sums[t][nb], a, weights[nb]);
    }
  }
};

// The dimension of rows g (second = false) and g + 8 of tile t of O^T.
template <class S>
__device__ int dimension_of(int t, int g, bool second) {
  if constexpr (S::kBf16) return t * 16 + g + (second ? 8 : 0);
  if constexpr (S::kRowBytes == 64) return g * 8 + t * 2 + (second ? 1 : 0);
  return (g + t / 8 * 8) * 16 + t % 8 * 2 + (second ? 1 : 0);
}

// Zeros in place of values that no query sees: a weight of 0 times a NaN that nobody wrote would be NaN.
template <class S>
__device__ void clear_unseen_values(const SequenceView& view, int key, uint32_t v) {
  if (key >= view.begin && key + kStepKeys <= view.seq_len) return;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < S::kTileBytes / 16; i += 32) {
    const int of_row = key + i / S::kRowChunks;
    if (of_row >= view.begin && of_row < view.seq_len) continue;
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(v + static_cast<uint32_t>(i * 16)), "r"(0)
                 : "memory");
  }
  __syncwarp();
}

}  // namespace octet
