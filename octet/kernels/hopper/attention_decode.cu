// hopper.attention_decode: paged attention for few new tokens a sequence, bound by the bytes of the cache. Two kernels:
// `decode` makes partial results of splits of the keys (attention_plan.cuh says which CTA makes which), `combine` adds
// those of a row in the order of the splits and writes it. Takes any number of rows, but is made for Hq / Hkv * rows
// of at most 16 a sequence.
//
// Keys are the rows and queries the columns of both products, on mma.m16n8k16: 8 columns hold all query heads that
// share a KV head, so nothing of the cache is read twice. S^T = K Q^T and O^T += V^T P^T. Every warp streams steps of
// 16 keys of its own through its own ring in shared memory, with its own softmax; the warps of a CTA meet at the end of
// a task. 8-bit caches are widened to f16, which holds them exactly; q is then f16 too, scaled per row by a power of
// two so that its largest element lies in [128, 256), and weights are kept times 2^8, so that nothing of weight is lost
// below f16's range.
//
// The order of the 16-byte chunks of a key's row in shared memory is permuted by the row so that all reads are free of
// bank conflicts. Head dimensions are permuted where only sums over them are needed (q . k), or where the result says
// where it lies (V of 8 bits).
#include "octet/kernels/hopper/attention_combine.cuh"
#include "octet/kernels/hopper/attention_decode.h"
#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/warp_mma.cuh"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kStepKeys = 16;
constexpr int kTaskStride = kWarps * kStepKeys;

template <class T, int kDim, int kBlocks>
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
  static constexpr int kFixedBytes =
      kWarps * kMergeVectors * 16 + kWarps * kQueries * 8 + static_cast<int>(sizeof(Plan<kThreads, kQueries>));
  // Widening takes time: three CTAs hide it.
  static constexpr int kCtasPerSm = kTileBytes < 4096 && kQueryBlocks == 1 ? 3 : kTileBytes <= 4096 ? 2 : 1;
  static constexpr int kMaxSharedBytes = (kCtasPerSm == 3 ? 75 : kCtasPerSm == 2 ? 113 : 226) << 10;
  static constexpr int kStages = std::min(8, (kMaxSharedBytes - kFixedBytes) / (2 * kTileBytes * kWarps));
  static constexpr int kRingBytes = kStages * 2 * kTileBytes;
  static_assert(kStages >= 2);

  // Byte of 16-byte chunk `chunk` of key `row` in a tile.
  __device__ static uint32_t place(int row, int chunk) {
    const int mixed = kRowChunks == 4 ? chunk ^ (row / 2 % 4) : chunk ^ (row % 8);
    return static_cast<uint32_t>(row * kRowBytes + mixed * 16);
  }
  // The j-th chunk of a row that lane group member c holds.
  __device__ static int chunk_of_lane(int c, int j) { return kRowChunks == 4 ? c : 2 * c + j % 2 + j / 2 * 8; }
};

template <class S>
struct SharedMemory {
  std::byte rings[kWarps][S::kRingBytes];
  float4 merge[kWarps][S::kMergeVectors];
  float highest[kWarps][S::kQueries];
  float total[kWarps][S::kQueries];
  Plan<kThreads, S::kQueries> plan;
};

// Two of four 8-bit elements as f16.
__device__ uint32_t e4m3_low(uint32_t word) { return e4m3_to_f16(static_cast<uint16_t>(word)); }
__device__ uint32_t e4m3_high(uint32_t word) { return e4m3_to_f16(static_cast<uint16_t>(word >> 16)); }

// The steps of 16 keys that one warp makes of a task: from first(), kTaskStride apart, below end.
struct TaskKeys {
  int split_begin, begin, end;

  __device__ TaskKeys(const SequenceView& view, Splits splits, int split)
      : split_begin(splits.begin(split)), begin(view.begin), end(min(splits.begin(split + 1), view.seq_len)) {}
  __device__ int first(int warp) const {
    const int key = split_begin + warp * kStepKeys;
    const int skip = begin - (kStepKeys - 1) - key;  // whole steps before the first key that is seen
    return skip > 0 ? key + (skip + kTaskStride - 1) / kTaskStride * kTaskStride : key;
  }
};

// Where a warp's copies stand: the next step to be fetched, a ring's length ahead of the one that is computed.
template <class S>
class Fetcher {
 public:
  __device__ Fetcher(const AttentionInput& in, const Plan<kThreads, S::kQueries>& plan, const Task& first,
                     const Task& stop, uint32_t ring)
      : in_(in),
        plan_(plan),
        task_(first),
        stop_(stop),
        view_(in, min(first.sequence, in.num_sequences - 1)),
        ring_(ring),
        block_shift_(log2_of(in.block_size)) {
    find_step(true);
  }

  // Starts the copies of the next step, if any, into stage `stage`; always commits a group.
  __device__ void fetch(int stage) {
    if (!(task_ == stop_)) {
      const int64_t cell = int64_t{first_cell_ + (key_ & (in_.block_size - 1))} * S::kRowBytes;
      const auto* k = static_cast<const std::byte*>(in_.k_cache) +
                      block_ * in_.k_block_stride * int64_t{sizeof(typename S::Element)} + cell;
      const auto* v = static_cast<const std::byte*>(in_.v_cache) +
                      block_ * in_.v_block_stride * int64_t{sizeof(typename S::Element)} + cell;
      const uint32_t tile = ring_ + static_cast<uint32_t>(stage * 2 * S::kTileBytes);
      const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
      for (int i = 0; i < S::kTileBytes / 16 / 32; ++i) {
        const int chunk = lane + 32 * i;
        const uint32_t to = tile + S::place(chunk / S::kRowChunks, chunk % S::kRowChunks);
        copy_async_16(to, k + chunk * 16);
        copy_async_16(to + S::kTileBytes, v + chunk * 16);
      }
      key_ += kTaskStride;
      find_step(false);
    }
    commit_copies();
  }

 private:
  // Moves on to a step that exists, and asks for its block: the answer is used by the next fetch.
  __device__ void find_step(bool new_task) {
    while (!(task_ == stop_)) {
      if (new_task) {
        const int row_blocks = plan_.row_blocks(in_, view_);
        first_cell_ = (row_blocks == 1 ? task_.head_block : task_.head_block / row_blocks) * in_.block_size;
        const TaskKeys keys(view_, plan_.splits, task_.split);
        key_ = keys.first(static_cast<int>(threadIdx.x) / 32);
        end_ = keys.end;
      }
      if (key_ < end_) {
        block_ = in_.block_table[task_.sequence * in_.table_stride + (key_ >> block_shift_)];
        return;
      }
      const int sequence = task_.sequence;
      task_ = plan_.after(in_, task_, view_);
      if (task_.sequence != sequence && task_.sequence < in_.num_sequences) view_ = SequenceView(in_, task_.sequence);
      new_task = true;
    }
  }

  const AttentionInput& in_;
  const Plan<kThreads, S::kQueries>& plan_;
  Task task_;
  Task stop_;
  SequenceView view_;
  uint32_t ring_;
  int block_shift_;
  int first_cell_ = 0;  // of the KV head in its block
  int key_ = 0;
  int end_ = 0;
  int64_t block_ = 0;
};

// The queries of a task as B operand, and what each lane needs of its two columns of every query block.
template <class S>
struct Queries {
  uint32_t fragments[S::kDots][S::kQueryBlocks][2];
  float scale[S::kQueryBlocks][2];  // of a score, to base-2 logarithms
  int last[S::kQueryBlocks][2];     // the column's own position: the last key that it sees
  int row[S::kQueryBlocks][2];      // the column's row of the sequence; -1: none
  int head[S::kQueryBlocks][2];

  // Column q of the block is row q of (new tokens x heads of the group). Columns beyond the rows are zeros.
  __device__ void load(const AttentionInput& in, const SequenceView& view, int head_block) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int num_rows = view.num_rows * in.group;
    const int row_blocks = Plan<kThreads, S::kQueries>::row_blocks(in, view);
    const int kv_head = head_block / row_blocks;
    const int first = head_block % row_blocks * S::kQueries;
#pragma unroll
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      const int own = first + nb * 8 + lane / 4;
      const bool valid = own < num_rows;
      const int64_t offset = valid ? (view.first_row + own / in.group) * in.q_stride +
                                         (int64_t{kv_head} * in.group + own % in.group) * S::kHeadDim
                                   : 0;
      const float inverse = load_column(static_cast<const BF16*>(in.q) + offset, valid, lane % 4, nb);
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

// What the warps' softmaxes of one task are to be multiplied by before they are added, and the sum of their weights.
template <class S>
struct Merge {
  float correction[kWarps][S::kQueryBlocks][2];
  float highest[S::kQueryBlocks][2];
  float total[S::kQueryBlocks][2];

  __device__ explicit Merge(const SharedMemory<S>& shared) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      for (int i = 0; i < 2; ++i) {
        const int column = nb * 8 + lane % 4 * 2 + i;
        float most = shared.highest[0][column];
        for (int w = 1; w < kWarps; ++w) most = fmaxf(most, shared.highest[w][column]);
        const float base = most == -INFINITY ? 0.0f : most;
        highest[nb][i] = most;
        total[nb][i] = 0.0f;
        for (int w = 0; w < kWarps; ++w) {
          correction[w][nb][i] = exp2_fast(shared.highest[w][column] - base);
          total[nb][i] += shared.total[w][column] * correction[w][nb][i];
        }
      }
    }
  }
};

// The warps' softmaxes of one task, added in their order, to the task's slots. Every warp leaves its O^T in shared
// memory and adds a quarter of the tiles.
template <class S>
__device__ void write_partial(const AttentionInput& in, const Partials& partials, int64_t slot, int num_splits,
                              const Queries<S>& queries, const Softmax<S>& softmax, SharedMemory<S>& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  __syncthreads();  // all have read what the task before left
  for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
    for (int i = 0; i < 2; ++i) {
      float total = softmax.total[nb][i];
      for (int step = 4; step < 32; step *= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
      if (lane < 4) {
        shared.highest[warp][nb * 8 + lane * 2 + i] = softmax.highest[nb][i];
        shared.total[warp][nb * 8 + lane * 2 + i] = total;
      }
    }
  }
#pragma unroll
  for (int pass = 0; pass < S::kMergePasses; ++pass) {
    if (pass > 0) __syncthreads();
#pragma unroll
    for (int t = 0; t < S::kPassTiles; ++t) {
      for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
        const float(&sums)[4] = softmax.sums[pass * S::kPassTiles + t][nb];
        shared.merge[warp][(t * S::kQueryBlocks + nb) * 32 + lane] = make_float4(sums[0], sums[1], sums[2], sums[3]);
      }
    }
    __syncthreads();
    const Merge<S> merge(shared);
    for (int nb = 0; nb < S::kQueryBlocks; ++nb) {
      int64_t index[2];
      for (int i = 0; i < 2; ++i) {
        index[i] = (slot + queries.row[nb][i] * num_splits) * in.num_heads + queries.head[nb][i];
        if (pass == 0 && threadIdx.x < 4 && queries.row[nb][i] >= 0) {
          partials.softmax[index[i]] = make_float2(merge.highest[nb][i], merge.total[nb][i]);
        }
      }
      for (int t = warp; t < S::kPassTiles; t += kWarps) {
        float sums[4] = {};
        for (int w = 0; w < kWarps; ++w) {
          const float4 part = shared.merge[w][(t * S::kQueryBlocks + nb) * 32 + lane];
          sums[0] += part.x * merge.correction[w][nb][0];
          sums[1] += part.y * merge.correction[w][nb][1];
          sums[2] += part.z * merge.correction[w][nb][0];
          sums[3] += part.w * merge.correction[w][nb][1];
        }
        for (int i = 0; i < 2; ++i) {
          if (queries.row[nb][i] < 0) continue;
          float* const to = partials.sums + index[i] * S::kHeadDim;
          to[dimension_of<S>(pass * S::kPassTiles + t, lane / 4, false)] = sums[i];
          to[dimension_of<S>(pass * S::kPassTiles + t, lane / 4, true)] = sums[i + 2];
        }
      }
    }
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads, S::kCtasPerSm)
    decode(const __grid_constant__ AttentionInput in, const Partials partials, int max_rows) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<SharedMemory<S>*>(shared_bytes);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const uint32_t ring = shared_address(shared.rings[warp]);
  wait_for_previous();
  start_next();
  shared.plan.make(in, max_rows, partials.num_slots);
  if (blockIdx.x == 0) {
    if (threadIdx.x == 0) partials.header->shift = shared.plan.splits.shift;
    for (int s = static_cast<int>(threadIdx.x); s < in.num_sequences; s += kThreads) {
      partials.header->slot_start[s] = shared.plan.slot_start[s];
    }
  }
  Task task;
  Task stop;
  shared.plan.find_share(in, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), task, stop);
  if (task == stop) return;
  Fetcher<S> fetcher(in, shared.plan, task, stop, ring);
  for (int stage = 0; stage < S::kStages - 1; ++stage) fetcher.fetch(stage);
  int stage = 0;
  SequenceView view(in, task.sequence);
  Queries<S> queries;
  queries.load(in, view, task.head_block);
  while (true) {
    Softmax<S> softmax;
    softmax.clear();
    const TaskKeys keys(view, shared.plan.splits, task.split);
    for (int key = keys.first(warp); key < keys.end; key += kTaskStride) {
      wait_for_copies<S::kStages - 2>();
      __syncwarp();
      const uint32_t tile = ring + static_cast<uint32_t>(stage * 2 * S::kTileBytes);
      clear_unseen_values<S>(view, key, tile + S::kTileBytes);
      const StepWords<S> words(tile);
      fetcher.fetch(stage == 0 ? S::kStages - 1 : stage - 1);  // the stage of the step before
      softmax.add_step(queries, in, view, key, words, tile);
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
    }
    const int64_t slot = shared.plan.slot_start[task.sequence] + task.split - view.first_split(shared.plan.splits);
    write_partial<S>(in, partials, slot, view.num_splits(shared.plan.splits), queries, softmax, shared);
    const Task before = task;
    task = shared.plan.after(in, task, view);
    if (task == stop) return;
    if (task.sequence != before.sequence) view = SequenceView(in, task.sequence);
    if (task.sequence != before.sequence || task.head_block != before.head_block) {
      queries.load(in, view, task.head_block);
    }
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
  using S = DecodeShape<T, kHeadDim, kQueryBlocks>;
  static_assert(sizeof(SharedMemory<S>) <= S::kMaxSharedBytes);
  allow_shared_bytes(decode<S>, sizeof(SharedMemory<S>));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(call.launch.gpu->num_sms * S::kCtasPerSm)),
                          .block = dim3(kThreads),
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
