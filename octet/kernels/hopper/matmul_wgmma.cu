// hopper.matmul_f8_wgmma, hopper.matmul_bf16_wgmma: matmuls of any number of tokens on Hopper's warpgroup instruction.
// f8_e4m3 x f8_e4m3 (weight per channel or per tensor, x per token or per tensor) or bf16 x bf16; out f32 or bf16. Rows
// of x and of the weight must be a multiple of 16 bytes, channels of 8, rows of out aligned to 16 bytes.
//
//   - A CTA makes tiles of 128 tokens x 256 (or 128) channels, one after another. One producer thread streams both
//     operands through a ring of stages, a chunk of 128 bytes of K each; two warpgroups multiply 64 tokens each.
//   - Two CTAs of a cluster make tiles of the same channels, neighbours in tokens: each loads its own tokens and half
//   of
//     the weight rows, which the copy engine writes into both, so that a weight is read from L2 once for 256 tokens.
//   - Tiles go through the matrix in bands of tokens, so that what the CTAs read at one time fits into L2.
//   - The instruction adds E4M3 products with 14 bits only. Its sums are therefore taken over two chunks at a time, 128
//     channels at a time, and added in F32 while the other warpgroup multiplies. BF16 products it adds in F32.
//   - The order over K is fixed, so a token's bits do not depend on the others.
#include <cmath>

#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/matmul_operands.cuh"
#include "octet/kernels/hopper/wgmma.cuh"

namespace octet {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = kWarpgroup * (1 + kConsumers);
constexpr int kTileTokens = 64 * kConsumers;
constexpr int kTokenBytes = kTileTokens * kChunkBytes;  // of a stage
constexpr int kBandTiles = 16;                          // of tokens
// Registers a thread; the producer gives its own to the warpgroups that hold the sums.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;

struct TileConfig {
  int channels;
  int stages;
  int cluster;    // CTAs that share weight rows
  float penalty;  // of the time that a tile's multiplications take, against the best
};
constexpr TileConfig kConfigs[] = {
    {.channels = 256, .stages = 4, .cluster = 2, .penalty = 1.0f},
    {.channels = 256, .stages = 4, .cluster = 1, .penalty = 1.15f},
    {.channels = 128, .stages = 6, .cluster = 2, .penalty = 1.15f},
    {.channels = 128, .stages = 6, .cluster = 1, .penalty = 1.3f},
};

struct Arguments {
  MatmulOutput output;
  int num_chunks;
  int token_tiles, channel_tiles;  // token tiles: of clusters, 128 * cluster tokens
};

constexpr int stage_bytes(const TileConfig& c) { return kTokenBytes + c.channels * kChunkBytes; }
constexpr int shared_bytes(const TileConfig& c) { return c.stages * (stage_bytes(c) + 2 * 8); }

// ---- clusters ----

__device__ inline int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of all CTAs of the cluster.
__device__ inline void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Arrives at the barrier at the same place in CTA `rank` of the cluster. Not release.cluster, whose fence of all memory
// would cost a microsecond: nothing was written, and wgmma's reads are over.
__device__ inline void arrive_at(uint32_t barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- the order of tiles ----

struct Tile {
  int token_tile, channel_tile;
};

// Bands of kBandTiles token tiles; within a band all its token tiles for the first channels, then for the next.
template <TileConfig kConfig>
__device__ Tile tile_at(const Arguments& a, int index) {
  constexpr int kBand = kBandTiles / kConfig.cluster;
  const int band = index / (kBand * a.channel_tiles);
  const int inside = index - band * kBand * a.channel_tiles;
  const int height = min(kBand, a.token_tiles - band * kBand);
  return {band * kBand + inside % height, inside / height};
}

// ---- roles ----

struct Ring {
  uint32_t stages, full, empty;  // addresses of stage 0 and its barriers
};

template <TileConfig kConfig>
__device__ void produce(const Arguments& a, const ChunkMap& weight, const ChunkMap& x, const Ring& ring) {
  constexpr int kShareRows = kConfig.channels / kConfig.cluster;
  const int rank = kConfig.cluster > 1 ? cluster_rank() : 0;
  const uint64_t policy = evict_last_policy();
  const int num_clusters = static_cast<int>(gridDim.x) / kConfig.cluster;
  wait_for_previous();
  int stage = 0;
  int parity = 1;  // of a ring that nobody has used
  for (int i = static_cast<int>(blockIdx.x) / kConfig.cluster; i < a.token_tiles * a.channel_tiles; i += num_clusters) {
    const Tile tile = tile_at<kConfig>(a, i);
    const int token = (tile.token_tile * kConfig.cluster + rank) * kTileTokens;
    const int channel = tile.channel_tile * kConfig.channels + rank * kShareRows;
    for (int chunk = 0; chunk < a.num_chunks; ++chunk) {
      const uint32_t full = ring.full + stage * 8;
      const uint32_t to = ring.stages + stage * stage_bytes(kConfig);
      wait_barrier(ring.empty + stage * 8, parity);
      arrive_expecting(full, stage_bytes(kConfig));
      copy_box<kTileTokens, 1>(to, x.map, x.by_chunk, token, chunk, full, policy);
      const uint32_t weight_to = to + kTokenBytes + rank * kShareRows * kChunkBytes;
      if constexpr (kConfig.cluster == 1) {
        copy_box<kShareRows, 1>(weight_to, weight.map, weight.by_chunk, channel, chunk, full, policy);
      } else {
        copy_box_to_all(weight_to, weight.map, weight.by_chunk, channel, chunk, full, (1 << kConfig.cluster) - 1);
      }
      if (++stage == kConfig.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
  start_next();
}

// Four lanes' words to rows: lane t gives word j of block t to lane j, and has then words 0..3 of block t.
__device__ inline uint4 transpose_in_quad(const uint32_t (&words)[4], int t) {
  // Lanes a distance of 1 apart exchange, then those of 2: each keeps what is in place and gives the other half.
  const bool odd = (t & 1) != 0;
  const uint32_t from01 = __shfl_xor_sync(0xffffffffu, odd ? words[0] : words[1], 1);
  const uint32_t from23 = __shfl_xor_sync(0xffffffffu, odd ? words[2] : words[3], 1);
  const uint32_t a0 = odd ? from01 : words[0];
  const uint32_t a1 = odd ? words[1] : from01;
  const uint32_t b0 = odd ? from23 : words[2];
  const uint32_t b1 = odd ? words[3] : from23;
  const bool high = (t & 2) != 0;
  const uint32_t c0 = __shfl_xor_sync(0xffffffffu, high ? a0 : b0, 2);
  const uint32_t c1 = __shfl_xor_sync(0xffffffffu, high ? a1 : b1, 2);
  return high ? make_uint4(c0, c1, b0, b1) : make_uint4(a0, a1, c0, c1);
}

// Scales and biases of channels 8j + 2t and the next, j = 0 .. 3, from `channel` on.
struct ChannelValues {
  float2 scale[4];
  float2 bias[4];
};
__device__ inline ChannelValues channel_values(const MatmulOutput& a, int channel, int t) {
  ChannelValues v;
  for (int j = 0; j < 4; ++j) {
    const int c = channel + 8 * j + 2 * t;
    v.scale[j] = make_float2(1.0f, 1.0f);
    v.bias[j] = make_float2(0.0f, 0.0f);
    if (c >= a.num_channels) continue;
    if (a.weight_scale != nullptr) {
      v.scale[j] = a.scale_per_channel ? *reinterpret_cast<const float2*>(a.weight_scale + c)
                                       : make_float2(a.weight_scale[0], a.weight_scale[0]);
    }
    if (a.bias != nullptr) v.bias[j] = *reinterpret_cast<const float2*>(a.bias + c);
  }
  return v;
}

// 32 channels of one token from the sums of a lane: `sums` of row 0 or (from element 2 on) row 8 of each 8 columns.
__device__ inline void write_row(const MatmulOutput& a, const float* sums, const ChannelValues& v, float x_scale,
                                 int token, int channel, int t) {
  float2 values[4];
  for (int j = 0; j < 4; ++j) {
    values[j].x = fmaf(x_scale * v.scale[j].x, sums[4 * j], v.bias[j].x);
    values[j].y = fmaf(x_scale * v.scale[j].y, sums[4 * j + 1], v.bias[j].y);
  }
  if (a.out_f32) {
    if (token >= a.num_tokens) return;
    float* row = static_cast<float*>(a.out) + token * a.out_stride;
    for (int j = 0; j < 4; ++j) {
      const int c = channel + 8 * j + 2 * t;
      if (c < a.num_channels) *reinterpret_cast<float2*>(row + c) = values[j];
    }
    return;
  }
  const uint32_t words[4] = {pack_bf16(values[0]), pack_bf16(values[1]), pack_bf16(values[2]), pack_bf16(values[3])};
  const uint4 packed = transpose_in_quad(words, t);
  const int c = channel + 8 * t;
  if (token < a.num_tokens && c < a.num_channels) {
    *reinterpret_cast<uint4*>(static_cast<BF16*>(a.out) + token * a.out_stride + c) = packed;
  }
}

template <TileConfig kConfig>
__device__ void write_tile(const MatmulOutput& a, const float (&sums)[kConfig.channels / 2], int first_token,
                           int first_channel) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int token = first_token + warp * 16 + lane / 4;
  const int t = lane % 4;
  const float x_scale[2] = {token < a.num_tokens ? a.x_scale_of(token) : 1.0f,
                            token + 8 < a.num_tokens ? a.x_scale_of(token + 8) : 1.0f};
#pragma unroll
  for (int block = 0; block < kConfig.channels / 32; ++block) {
    const int channel = first_channel + 32 * block;
    const ChannelValues v = channel_values(a, channel, t);
    write_row(a, sums + 16 * block, v, x_scale[0], token, channel, t);
    write_row(a, sums + 16 * block + 2, v, x_scale[1], token + 8, channel, t);
  }
}

constexpr int kPartChannels = 128;

// A warpgroup's view of the ring: the stage that it is at.
template <TileConfig kConfig>
struct Reader {
  Ring ring;
  int warpgroup;
  int stage = 0;
  int parity = 0;

  __device__ void wait() const { wait_barrier(ring.full + stage * 8, parity); }
  __device__ uint64_t tokens() const {
    return wgmma_operand(ring.stages + stage * stage_bytes(kConfig) + warpgroup * 64 * kChunkBytes);
  }
  __device__ uint64_t channels(int first = 0) const {
    return wgmma_operand(ring.stages + stage * stage_bytes(kConfig) + kTokenBytes + first * kChunkBytes);
  }
  __device__ void release() const {
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    if (kConfig.cluster == 1) {
      if (thread == 0) arrive(ring.empty + stage * 8);
    } else if (thread < kConfig.cluster) {
      arrive_at(ring.empty + stage * 8, thread);
    }
  }
  __device__ Reader next() const {
    const bool wraps = stage + 1 == kConfig.stages;
    return {ring, warpgroup, wraps ? 0 : stage + 1, wraps ? parity ^ 1 : parity};
  }
};

// The sums of a tile. One chunk is multiplied while the next is awaited.
template <class Element, TileConfig kConfig>
__device__ void multiply_tile(float (&sums)[kConfig.channels / 2], Reader<kConfig>& reader, int num_chunks) {
  Reader<kConfig> before = reader;
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    reader.wait();
    wgmma_chunk<Element>(sums, reader.tokens(), reader.channels(), chunk);
    wgmma_wait<1>();
    if (chunk > 0) before.release();
    before = reader;
    reader = reader.next();
  }
  wgmma_wait<0>();
  before.release();
}

// The same with sums of two chunks added up apart, 128 channels at a time.
template <class Element, TileConfig kConfig>
__device__ void multiply_tile_in_parts(float (&sums)[kConfig.channels / 2], Reader<kConfig>& reader, int num_chunks) {
  constexpr int kParts = kConfig.channels / kPartChannels;
  constexpr int kPartSums = kPartChannels / 2;
  for (int i = 0; i < kConfig.channels / 2; ++i) sums[i] = 0.0f;
  for (int chunk = 0; chunk < num_chunks; chunk += 2) {
    const Reader<kConfig> second = reader.next();
    const bool is_pair = chunk + 1 < num_chunks;
    reader.wait();
    if (is_pair) second.wait();
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      float part_sums[kPartSums];
      wgmma_chunk<Element>(part_sums, reader.tokens(), reader.channels(part * kPartChannels), 0);
      if (is_pair) wgmma_chunk<Element>(part_sums, second.tokens(), second.channels(part * kPartChannels), 1);
      wgmma_wait<0>();
      if (part + 1 == kParts) {
        reader.release();
        if (is_pair) second.release();
      }
#pragma unroll
      for (int i = 0; i < kPartSums; ++i) sums[part * kPartSums + i] += part_sums[i];
    }
    reader = is_pair ? second.next() : second;
  }
}

template <class Element, TileConfig kConfig>
__device__ void consume(const Arguments& a, const Ring& ring, int warpgroup) {
  const int rank = kConfig.cluster > 1 ? cluster_rank() : 0;
  const int num_clusters = static_cast<int>(gridDim.x) / kConfig.cluster;
  Reader<kConfig> reader{ring, warpgroup};
  wait_for_previous();
  for (int i = static_cast<int>(blockIdx.x) / kConfig.cluster; i < a.token_tiles * a.channel_tiles; i += num_clusters) {
    const Tile tile = tile_at<kConfig>(a, i);
    float sums[kConfig.channels / 2];
    if constexpr (kAddsChunks<Element>) {
      multiply_tile_in_parts<Element, kConfig>(sums, reader, a.num_chunks);
    } else {
      multiply_tile<Element, kConfig>(sums, reader, a.num_chunks);
    }
    write_tile<kConfig>(a.output, sums, (tile.token_tile * kConfig.cluster + rank) * kTileTokens + warpgroup * 64,
                        tile.channel_tile * kConfig.channels);
  }
}

template <class Element, int kIndex>
__global__ void __launch_bounds__(kThreads, 1)
    matmul_wgmma(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x, const Arguments a) {
  constexpr TileConfig kConfig = kConfigs[kIndex];
  extern __shared__ __align__(kSwizzleAlignment) std::byte memory[];
  const uint32_t stages = shared_address(memory);
  const Ring ring{stages, stages + kConfig.stages * stage_bytes(kConfig),
                  stages + kConfig.stages * (stage_bytes(kConfig) + 8)};
  if (threadIdx.x == 0) {
    for (int i = 0; i < kConfig.stages; ++i) {
      init_barrier(ring.full + i * 8, 1);
      init_barrier(ring.empty + i * 8, kConsumers * kConfig.cluster);
    }
    publish_barriers();
    prefetch_map(weight.map);
    prefetch_map(x.map);
  }
  if constexpr (kConfig.cluster > 1) cluster_barrier();
  __syncthreads();
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) produce<kConfig>(a, weight, x, ring);
    __syncwarp();
  } else {
    take_registers<kConsumerRegisters>();
    consume<Element, kConfig>(a, ring, warpgroup - 1);
  }
  // No CTA leaves while another may still write into it.
  if constexpr (kConfig.cluster > 1) cluster_barrier();
}

// ---- host ----

int64_t num_tiles(const TileConfig& c, const MatmulOp& op) {
  return ceil_divide(op.out.dim(0), kTileTokens * c.cluster) * ceil_divide(op.out.dim(1), c.channels) * c.cluster;
}

// The least time, if every SM makes tile after tile and all take equally long.
int choose_config(const MatmulOp& op, const Launch& launch) {
  int best = 0;
  float best_time = INFINITY;
  for (size_t i = 0; i < std::size(kConfigs); ++i) {
    if (op.out.dim(0) <= kTileTokens * (kConfigs[i].cluster - 1)) continue;
    const int64_t rounds = ceil_divide(num_tiles(kConfigs[i], op), launch.gpu->num_sms);
    const float time = static_cast<float>(rounds * kConfigs[i].channels) * kConfigs[i].penalty;
    if (time < best_time) {
      best_time = time;
      best = static_cast<int>(i);
    }
  }
  return best;
}

std::string declines(const MatmulOp& op, const Launch& launch, DType dtype) {
  std::string reason = operands_decline(op, launch, dtype);
  if (reason.empty()) reason = vector_output_declines(op);
  if (reason.empty() && shared_bytes(kConfigs[0]) > launch.gpu->max_shared_bytes) {
    reason = fmt::format("needs {} bytes of shared memory, there are {}", shared_bytes(kConfigs[0]),
                         launch.gpu->max_shared_bytes);
  }
  return reason;
}

template <class Element, int kIndex>
void run_config(const MatmulOp& op, const Launch& launch) {
  constexpr TileConfig kConfig = kConfigs[kIndex];
  const Arguments arguments{.output = make_matmul_output(op),
                            .num_chunks = static_cast<int>(num_chunks(op)),
                            .token_tiles = static_cast<int>(ceil_divide(op.out.dim(0), kTileTokens * kConfig.cluster)),
                            .channel_tiles = static_cast<int>(ceil_divide(op.out.dim(1), kConfig.channels))};
  const int64_t num_ctas =
      std::min<int64_t>(num_tiles(kConfig, op), launch.gpu->num_sms / kConfig.cluster * kConfig.cluster);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_ctas)),
                          .block = dim3(kThreads),
                          .shared_bytes = shared_bytes(kConfig),
                          .cluster = kConfig.cluster};
  allow_shared_bytes(matmul_wgmma<Element, kIndex>, shape.shared_bytes);
  launch_kernel("hopper.matmul_wgmma", launch, shape, matmul_wgmma<Element, kIndex>,
                make_chunk_map(op.weight.data, kConfig.channels / kConfig.cluster, 1),
                make_chunk_map(op.x.data, kTileTokens, 1), arguments);
}

template <class Element>
void run(const MatmulOp& op, const Launch& launch) {
  const int config = choose_config(op, launch);
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    ((config == kIndex ? run_config<Element, kIndex>(op, launch) : void()), ...);
  }
  (std::make_integer_sequence<int, std::size(kConfigs)>());
}

}  // namespace

Kernel<MatmulOp> hopper_matmul_f8_wgmma() {
  return {.name = "hopper.matmul_f8_wgmma",
          .declines = [](const MatmulOp& op, const Launch& l) { return declines(op, l, DType::kF8E4M3); },
          .run = run<F8E4M3>};
}

Kernel<MatmulOp> hopper_matmul_bf16_wgmma() {
  return {.name = "hopper.matmul_bf16_wgmma",
          .declines = [](const MatmulOp& op, const Launch& l) { return declines(op, l, DType::kBF16); },
          .run = run<BF16>};
}

}  // namespace octet
