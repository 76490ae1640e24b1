// The swapped matmul kernel: see matmul_swapped.cu and expert_matmul_swapped.cu, which choose how it works.
#pragma once

#include "octet/kernels/hopper/cluster.cuh"
#include "octet/kernels/hopper/weight_stream.cuh"
#include "octet/kernels/hopper/wgmma.cuh"

namespace octet::swapped {

inline constexpr int kWarpgroup = 128;
inline constexpr int kConsumers = 2 * kWarpgroup;
inline constexpr int kThreads = kConsumers + 32;
inline constexpr int kGroupRows = 64;
inline constexpr int kTrigger = 4;

struct SwappedConfig {
  int tokens;
  int row_groups;  // 2: 64 rows for each warpgroup; 1: half of K for each
  int chunks;
  int stages;
  int splits = 1;  // of K over a cluster's CTAs, which then have one tile
};
// Whether a thread's registers hold what it needs. With chunks' scales for more tokens the large kernel is faster.
inline constexpr int kMaxScaledTokens = 32;
constexpr bool fits(const SwappedConfig& c, bool scales_chunks) {
  return !scales_chunks || (c.row_groups == 1 && c.tokens <= kMaxScaledTokens);
}
constexpr bool shares_sm(const SwappedConfig& c) { return c.tokens <= 64; }
constexpr StreamShape stream_shape(const SwappedConfig& c) {
  return {.tile_rows = kGroupRows * c.row_groups,
          .tokens = c.tokens,
          .chunks = c.chunks,
          .stages = c.stages,
          .extra_bytes = c.row_groups == 1 ? kGroupRows * c.tokens * static_cast<int>(sizeof(float)) : 0,
          .splits = c.splits,
          .row_unit = 8};
}
template <class Sum>
using Quad = std::conditional_t<std::is_same_v<Sum, float>, float4, int4>;

__device__ inline void consumer_barrier() { asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory"); }

// The thread's first row of a tile; the other is 8 below.
template <SwappedConfig kConfig>
__device__ inline int row_in_tile() {
  const int thread = static_cast<int>(threadIdx.x);
  const int group = kConfig.row_groups == 2 ? thread / kWarpgroup : 0;
  return group * kGroupRows + thread % kWarpgroup / 32 * 16 + thread % 32 / 4;
}

// The scales of a chunk that a thread's sums are multiplied by: channels channel and channel + 8, tokens 8j + 2t and
// 8j + 2t + 1. Lane (g, t) loads those of j = g; the others have them from there.
template <SwappedConfig kConfig>
struct WarpChunkScales {
  float rows[2];
  float tokens[2];

  __device__ void load(const MatmulOutput& a, const MatrixTile& tile, int chunk) {
    const int channel = tile.channel + row_in_tile<kConfig>();
    const ChunkScales& scales = a.chunks;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    chunk = scales.inside(chunk);
    for (int i = 0; i < 2; ++i) {
      rows[i] = scales.weight[scales.of_channel(channel + 8 * i, a.num_channels, tile.matrix) + chunk];
      tokens[i] = scales.x[scales.of_token(tile.row + 2 * lane + i, a.num_tokens) + chunk];
    }
  }
  template <int kCount>
  __device__ void add(float (&sums)[kCount], const float (&part)[kCount]) const {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int octet = 0; octet < kCount / 4; ++octet) {
      for (int i = 0; i < 2; ++i) {
        const float token = __shfl_sync(0xffffffffu, tokens[i], octet * 4 + t);
        for (int k = i; k < 4; k += 2) {
          sums[4 * octet + k] = fmaf(part[4 * octet + k], rows[k / 2] * token, sums[4 * octet + k]);
        }
      }
    }
  }
};

// The sums of a warpgroup over a tile: [rows g, g + 8] x [tokens 8j + 2t, 8j + 2t + 1] in sums[4j ..].
template <class Kind, SwappedConfig kConfig, bool kExperts>
__device__ void multiply_tile(const StreamArguments& a, typename Kind::Sum (&sums)[kConfig.tokens / 2],
                              const WeightStream<stream_shape(kConfig), kExperts>& stream,
                              StreamReader<stream_shape(kConfig), kExperts>& reader, int warpgroup,
                              const MatrixTile& tile) {
  using Element = typename Kind::Element;
  constexpr StreamShape kShape = stream_shape(kConfig);
  // Bytes between eights of tokens in a stage: experts' come eight by eight.
  constexpr int kEights = kExperts ? kShape.chunks * 8 * kChunkBytes : 8 * kChunkBytes;
  const int x_chunk = (kExperts ? 8 : a.x_rows) * kChunkBytes;
  for (int i = 0; i < kConfig.tokens / 2; ++i) sums[i] = 0;
  WarpChunkScales<kConfig> scales;
  const int chunk = kConfig.row_groups == 1 ? warpgroup : 0;
  const auto chunk_at = [&](int step) { return (stream.first_step + step) * kShape.chunks + chunk; };
  if constexpr (Kind::kScalesChunks) scales.load(a.output, tile, chunk_at(0));
#pragma unroll 1
  for (int step = 0; step < stream.steps; ++step) {
    const int group = kConfig.row_groups == 1 ? 0 : warpgroup;
    const uint32_t stage = reader.wait(stream);
    const uint64_t rows = wgmma_operand(stage + (chunk * kShape.tile_rows + group * kGroupRows) * kChunkBytes);
    // Rows beyond the stage's are anything: columns of the result that nobody wants.
    const uint64_t tokens = wgmma_operand(stage + kShape.weight_bytes() + chunk * x_chunk, kEights);
    if constexpr (Kind::kScalesChunks) {
      float part[kConfig.tokens / 2];
      wgmma_chunk<Element>(part, rows, tokens, 0);
      wgmma_wait<0>();
      if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
      scales.add(sums, part);
      scales.load(a.output, tile, chunk_at(step + 1));  // they come while the next chunk is awaited
    } else if constexpr (kAddsChunks<Element>) {
      float part[kConfig.tokens / 2];
      wgmma_chunk<Element>(part, rows, tokens, 0);
      wgmma_wait<0>();
      if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
#pragma unroll
      for (int i = 0; i < kConfig.tokens / 2; ++i) sums[i] += part[i];
    } else {
      wgmma_chunk<Element>(sums, rows, tokens, 1);
      wgmma_wait<0>();
      if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
    }
    reader.advance();
  }
}

// Rows row and row + 8 x kCount tokens from first_token on of the CTA's tile `index`.
template <StreamShape kShape, int kCount, class Sum, bool kExperts>
__device__ void write_sums(const StreamArguments& a, const WeightStream<kShape, kExperts>& stream, const Sum* sums,
                           int index, const MatrixTile& tile, int row, int first_token) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int t = lane % 4;
  const bool odd = (lane / 4 & 1) != 0;
#pragma unroll
  for (int i = 0; i < kCount / 8 * 2; ++i) {  // 8 tokens, then which row of the two
    const int token = first_token + i / 2 * 8 + 2 * t;
    const int place = row + i % 2 * 8;
    const int channel = tile.channel + place;
    const float first = stream.finish(a, static_cast<float>(sums[2 * i]), index, place, token);
    const float second = stream.finish(a, static_cast<float>(sums[2 * i + 1]), index, place, token + 1);
    if (a.output.out_f32) {
      float* out = static_cast<float*>(a.output.out) + (tile.row + token) * a.output.out_stride + channel;
      if (channel < a.output.num_channels && token < tile.num_rows) *out = first;
      if (channel < a.output.num_channels && token + 1 < tile.num_rows) out[a.output.out_stride] = second;
      continue;
    }
    // Neighbours in rows exchange, so that each has two channels of one token.
    const float got = __shfl_xor_sync(0xffffffffu, odd ? first : second, 4);
    const uint32_t packed = odd ? pack_bf16({got, second}) : pack_bf16({first, got});
    const int my_token = odd ? token + 1 : token;
    const int my_channel = odd ? channel - 1 : channel;
    if (my_channel < a.output.num_channels && my_token < tile.num_rows) {
      *reinterpret_cast<uint32_t*>(static_cast<BF16*>(a.output.out) + (tile.row + my_token) * a.output.out_stride +
                                   my_channel) = packed;
    }
  }
}

// Warpgroup 0's sums over even chunks and warpgroup 1's over odd ones: the first keeps the first half of the tokens and
// gets the other's sums of it, and the other way round.
template <SwappedConfig kConfig, class Sum>
__device__ void exchange_sums(Sum (&sums)[kConfig.tokens / 2], std::byte* memory, int warpgroup) {
  constexpr int kQuads = kConfig.tokens / 16;  // of a half
  auto* given = reinterpret_cast<Quad<Sum>*>(memory);
  const auto place = [&](int half, int i) -> Quad<Sum>& {
    return given[(half * kQuads + i) * kWarpgroup + threadIdx.x % kWarpgroup];
  };
  const auto quad = [&](int i) { return Quad<Sum>{sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]}; };
  consumer_barrier();  // the last tile's have been read
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    if (warpgroup == 0) {
      place(1, i) = quad(kQuads + i);
    } else {
      place(0, i) = quad(i);
    }
  }
  consumer_barrier();
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const Quad<Sum> other = place(warpgroup, i);
    const auto add = [&](int first) {  // a sum of two has no order
      sums[first] += other.x;
      sums[first + 1] += other.y;
      sums[first + 2] += other.z;
      sums[first + 3] += other.w;
    };
    if (warpgroup == 0) {
      add(4 * i);
    } else {
      add(4 * (kQuads + i));
    }
  }
}

// The CTA's sums of half of the tokens and the other CTA's: quarter `rank` of all tokens, of the whole K. The memory is
// that of exchange_sums.
template <SwappedConfig kConfig, class Sum>
__device__ void exchange_in_cluster(Sum (&quarter)[kConfig.tokens / 8], const Sum* half, std::byte* memory,
                                    int warpgroup, int rank) {
  constexpr int kQuads = kConfig.tokens / 32;
  Quad<Sum>* given = reinterpret_cast<Quad<Sum>*>(memory) + warpgroup * kQuads * kWarpgroup + threadIdx.x % kWarpgroup;
  cluster_barrier();  // both CTAs have read what they exchanged within themselves
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const Sum* keep = half + 4 * i;
    const Sum* give = half + 4 * (kQuads + i);
    Quad<Sum> values;
    if (rank == 0) {
      values = {give[0], give[1], give[2], give[3]};
      for (int j = 0; j < 4; ++j) quarter[4 * i + j] = keep[j];
    } else {
      values = {keep[0], keep[1], keep[2], keep[3]};
      for (int j = 0; j < 4; ++j) quarter[4 * i + j] = give[j];
    }
    store_at(shared_address(given + i * kWarpgroup), values, 1 - rank);
  }
  cluster_barrier();
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const Quad<Sum> other = given[i * kWarpgroup];  // a sum of two has no order
    quarter[4 * i] += other.x;
    quarter[4 * i + 1] += other.y;
    quarter[4 * i + 2] += other.z;
    quarter[4 * i + 3] += other.w;
  }
}

template <SwappedConfig kConfig, class Sum, bool kExperts>
__device__ void write_shared_tile(const StreamArguments& a, const WeightStream<stream_shape(kConfig), kExperts>& stream,
                                  const Sum* half, int index, const MatrixTile& tile, int warpgroup) {
  const int row = row_in_tile<kConfig>();
  constexpr StreamShape kShape = stream_shape(kConfig);
  const int first_token = warpgroup * kConfig.tokens / 2;
  if constexpr (kConfig.splits == 1) {
    write_sums<kShape, kConfig.tokens / 2>(a, stream, half, index, tile, row, first_token);
  } else {
    Sum quarter[kConfig.tokens / 8];
    exchange_in_cluster<kConfig>(quarter, half, stream.memory + kShape.extra_offset(), warpgroup, stream.rank);
    write_sums<kShape, kConfig.tokens / 4>(a, stream, quarter, index, tile, row,
                                           first_token + stream.rank * kConfig.tokens / 4);
  }
}

template <class Kind, SwappedConfig kConfig, bool kExperts>
__device__ void consume(const StreamArguments& a, const WeightStream<stream_shape(kConfig), kExperts>& stream) {
  constexpr StreamShape kShape = stream_shape(kConfig);
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  stream.load_scales(a, kConsumers);
  consumer_barrier();
  StreamReader<kShape, kExperts> reader;
  auto tiles = stream.tiles(a);
  for (int index = 0; index < stream.num_tiles; ++index) {
    const MatrixTile tile = tiles.at(index);
    const float token_scale = Kind::kScalesChunks ? 1.0f : stream.token_scale(a, tile);
    typename Kind::Sum sums[kConfig.tokens / 2];
    multiply_tile<Kind, kConfig>(a, sums, stream, reader, warpgroup, tile);
    stream.put_token_scale(a, index, token_scale);
    if constexpr (kConfig.row_groups == 2) {
      if constexpr (kExperts) consumer_barrier();
      write_sums<kShape, kConfig.tokens>(a, stream, sums, index, tile, row_in_tile<kConfig>(), 0);
    } else {
      exchange_sums<kConfig>(sums, stream.memory + kShape.extra_offset(), warpgroup);
      if (warpgroup == 0) {
        write_shared_tile<kConfig>(a, stream, sums, index, tile, 0);
      } else {
        write_shared_tile<kConfig>(a, stream, sums + kConfig.tokens / 4, index, tile, 1);
      }
    }
  }
}

template <class Kind, SwappedConfig kConfig, bool kExperts>
__device__ void multiply(const ChunkMap& weight, const ChunkMap& x, const StreamArguments& a) {
  extern __shared__ __align__(kSwizzleAlignment) std::byte memory[];
  if (kExperts && !a.follows_plan) wait_for_previous();
  const WeightStream<stream_shape(kConfig), kExperts> stream(memory, a);
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == kConsumers) {
    stream.init_barriers(2);
    prefetch_map(weight.map);
    prefetch_map(x.map);
  }
  __syncthreads();
  if (thread < kConsumers) {
    consume<Kind, kConfig, kExperts>(a, stream);
  } else {
    if (thread == kConsumers) stream.produce(a, weight, x);
    __syncwarp();
    if constexpr (kConfig.splits > 1) {  // those of exchange_in_cluster
      cluster_barrier();
      cluster_barrier();
    }
  }
}

}  // namespace octet::swapped
