// hopper.matmul_f8_wgmma, matmul_f8_block_wgmma, matmul_i8_wgmma, matmul_bf16_wgmma: matmuls of any number of tokens
// on Hopper's warpgroup instruction. Operands as the ring's (matmul_ring.cu), with scales per 128 columns the weight's
// per block of 128 rows; out f32 or bf16. Rows of x and of the weight must be a multiple of 16 bytes, channels of 8,
// rows of out aligned to 16 bytes.
//
//   - A CTA makes tiles of 128 tokens x 64 .. 256 channels, one after another. One thread streams both operands through
//     a ring of stages, a chunk of 128 bytes of K each; one warp brings the scales; two warpgroups multiply 64 tokens
//     each. BF16 results go through shared memory; the copy engine writes them beside the next tile.
//   - Two CTAs of a cluster make tiles of the same channels, neighbours in tokens: each loads its own tokens and half
//     of the weight rows, which the copy engine writes into both, so that a weight is read from L2 once for 256 tokens.
//   - Tiles go through the matrix in bands of tokens, so that what the CTAs read at one time fits into L2. Their width
//     is the one with which the SMs are done first.
//   - The instruction adds E4M3 products with 14 bits only. Its sums are therefore taken over two chunks at a time and
//     added in F32 while the other warpgroup multiplies: they take turns. Registers for both limit a tile to 192
//     channels; 256 in two halves, whose instructions are narrower, were slower. BF16 products it adds in F32, INT8's
//     in I32. Where chunks have scales, each chunk's sums are added apart, in tiles that lie in one block of rows.
//   - The order over K is fixed, so a token's bits do not depend on the others.
#include <algorithm>
#include <iterator>
#include <ranges>

#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/matmul_wgmma_tiles.cuh"
#include "octet/kernels/hopper/wgmma.cuh"

namespace octet {
namespace {

using namespace matmul_tiles;

// Chunks whose E4M3 products the instruction adds up.
template <class Kind>
inline constexpr int kAddedChunks = Kind::kScalesChunks ? 1 : 2;
// Registers a thread; the producer gives its own to the warpgroups that hold the sums.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;

constexpr TileConfig kConfigs[] = {
    {.channels = 64, .stages = 8, .cluster = 1},  {.channels = 96, .stages = 7, .cluster = 1},
    {.channels = 128, .stages = 6, .cluster = 1}, {.channels = 128, .stages = 6, .cluster = 2},
    {.channels = 160, .stages = 5, .cluster = 2}, {.channels = 176, .stages = 4, .cluster = 2},
    {.channels = 192, .stages = 4, .cluster = 2}, {.channels = 256, .stages = 3, .cluster = 2},
};
constexpr int kBlockRows = 128;         // of a weight whose chunks have scales
constexpr int64_t kMaxUnshared = 1024;  // tokens, up to which CTAs may read all weight rows themselves

// Whether a thread's registers hold a tile's sums, E4M3's twice.
template <class Kind>
constexpr bool fits(const TileConfig& c) {
  if (Kind::kScalesChunks) return kBlockRows % c.channels == 0;
  return c.channels <= (kAddsChunks<typename Kind::Element> ? 192 : 256);
}

// ---- registers ----

template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// A warpgroup's view of the ring: the stage that it is at.
template <TileConfig kConfig>
struct Reader {
  Memory<kConfig> memory;
  int warpgroup;
  Place<kConfig> place = {};

  __device__ void wait() const { wait_barrier(memory.full(place.stage), place.parity); }
  __device__ uint64_t tokens() const { return wgmma_operand(memory.stage(place.stage) + warpgroup * 64 * kChunkBytes); }
  __device__ uint64_t channels() const { return wgmma_operand(memory.stage(place.stage) + kTokenBytes); }
  __device__ void release(int stage) const {
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    if (kConfig.cluster == 1) {
      if (thread == 0) arrive(memory.empty(stage));
    } else if (thread < kConfig.cluster) {
      arrive_at(memory.empty(stage), thread);
    }
  }
};

// The two warpgroups' turns at the tensor cores: one adds up what it has while the other's multiplications run. Left to
// themselves they get into step, and the tensor cores wait for both.
struct Turns {
  int warpgroup;

  __device__ void wait() const {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier(warpgroup)), "n"(kConsumers * kWarpgroup) : "memory");
  }
  __device__ void pass() const {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier(1 - warpgroup)), "n"(kConsumers * kWarpgroup) : "memory");
  }

 private:
  __device__ static int barrier(int whose) { return 1 + kConsumers + whose; }  // after the warpgroups' own
};

// The sums of a tile, one chunk multiplied while the next is awaited.
template <class Element, TileConfig kConfig>
__device__ inline void multiply_tile(WgmmaSum<Element> (&sums)[kConfig.channels / 2], Reader<kConfig>& reader,
                                     int num_chunks) {
  int before = 0;
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    reader.wait();
    wgmma_chunk<Element>(sums, reader.tokens(), reader.channels(), chunk);
    wgmma_wait<1>();
    if (chunk > 0) reader.release(before);
    before = reader.place.stage;
    reader.place.advance();
  }
  wgmma_wait<0>();
  reader.release(before);
}

// The first of a thread's two rows of a tile; the other is 8 below.
__device__ inline int row_in_tile(int warpgroup) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  return warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4;
}

// What a thread's sums of a chunk are multiplied by: those of its first token and of the one 8 below.
struct ChunkFactors {
  int of_channel;
  int of_tokens[2];
  float channel, tokens[2];

  __device__ void begin(const MatmulOutput& a, int token, int first_channel) {
    of_channel = a.chunks.of_channel(first_channel, a.num_channels);
    for (int i = 0; i < 2; ++i) of_tokens[i] = a.chunks.of_token(token + 8 * i, a.num_tokens);
  }
  __device__ void load(const ChunkScales& scales, int chunk) {
    chunk = scales.inside(chunk);
    channel = scales.weight[of_channel + chunk];
    for (int i = 0; i < 2; ++i) tokens[i] = scales.x[of_tokens[i] + chunk];
  }
};

// The same with sums of kAddedChunks chunks added up apart, in turns with the other warpgroup. `token`: the thread's
// first, `channel` the tile's.
template <class Kind, TileConfig kConfig>
__device__ inline void multiply_tile_apart(const Arguments& a, float (&sums)[kConfig.channels / 2],
                                           Reader<kConfig>& reader, int token, int channel) {
  constexpr int kAdded = kAddedChunks<Kind>;
  const Turns turns{reader.warpgroup};
  for (float& sum : sums) sum = 0.0f;
  ChunkFactors factors;
  if constexpr (Kind::kScalesChunks) {
    factors.begin(a.output, token, channel);
    factors.load(a.output.chunks, 0);
  }
  for (int first = 0; first < a.num_chunks; first += kAdded) {
    const int count = min(kAdded, a.num_chunks - first);
    float part[kConfig.channels / 2];
    ChunkFactors next = factors;
    if constexpr (Kind::kScalesChunks) next.load(a.output.chunks, first + 1);
    Reader<kConfig> done = reader;
    reader.wait();
    turns.wait();
#pragma unroll
    for (int i = 0; i < kAdded; ++i) {
      if (i < count) {
        if (i > 0) reader.wait();
        wgmma_chunk<typename Kind::Element>(part, reader.tokens(), reader.channels(), i);
        reader.place.advance();
      }
    }
    turns.pass();
    if (count > 1) {
      wgmma_wait<1>();
      done.release(done.place.stage);
      done.place.advance();
    }
    wgmma_wait<0>();
    done.release(done.place.stage);
    if constexpr (Kind::kScalesChunks) {
      const float factor[2] = {factors.channel * factors.tokens[0], factors.channel * factors.tokens[1]};
#pragma unroll
      for (int i = 0; i < kConfig.channels / 2; ++i) sums[i] = fmaf(part[i], factor[i / 2 % 2], sums[i]);
      factors = next;
    } else {
#pragma unroll
      for (int i = 0; i < kConfig.channels / 2; ++i) sums[i] += part[i];
    }
  }
}

// ---- results ----

// A lane's share of 8 channels of a tile, from 2t on: scales and biases.
struct ChannelPair {
  float2 scale, bias;
};
template <TileConfig kConfig>
__device__ inline ChannelPair channel_pair(const float* scales, int channel) {
  return {*reinterpret_cast<const float2*>(scales + channel),
          *reinterpret_cast<const float2*>(scales + kConfig.channels + channel)};
}
template <class Sum>
__device__ inline float2 finish(const ChannelPair& v, float x_scale, Sum first, Sum second) {
  return {fmaf(x_scale * v.scale.x, static_cast<float>(first), v.bias.x),
          fmaf(x_scale * v.scale.y, static_cast<float>(second), v.bias.y)};
}

template <TileConfig kConfig, class Sum>
__device__ inline void write_f32(const MatmulOutput& a, const Sum (&sums)[kConfig.channels / 2], const float* scales,
                                 const float (&x_scale)[2], int token, int first_channel) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < kConfig.channels / 8; ++j) {
    const ChannelPair pair = channel_pair<kConfig>(scales, 8 * j + 2 * t);
    const int channel = first_channel + 8 * j + 2 * t;
    for (int half = 0; half < 2; ++half) {
      if (channel >= a.num_channels || token + 8 * half >= a.num_tokens) continue;
      float* row = static_cast<float*>(a.out) + (token + 8 * half) * a.out_stride;
      *reinterpret_cast<float2*>(row + channel) =
          finish(pair, x_scale[half], sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
    }
  }
}

__device__ inline void warpgroup_barrier(int warpgroup) {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + warpgroup), "n"(kWarpgroup) : "memory");
}

// To shared memory, and on from there while the next tile is multiplied.
template <TileConfig kConfig, class Sum>
__device__ inline void write_bf16(const CUtensorMap& out, const Sum (&sums)[kConfig.channels / 2],
                                  const Memory<kConfig>& memory, const float (&x_scale)[2], int warpgroup, int token,
                                  int first_channel) {
  constexpr int kRowBytes = box_channels(kConfig) * 2;
  constexpr int kBoxBytes = 64 * kRowBytes;
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int lane = thread % 32;
  const int t = lane % 4;
  // Lane 8i + r names row r of matrix i: of tokens r (i even) or 8 + r of 8 channels or (i > 1) of the next 8.
  const int row = thread / 32 * 16 + lane % 16;
  const uint32_t results = memory.results(warpgroup);
  if (thread == 0) wait_for_store_reads();  // of the last tile
  warpgroup_barrier(warpgroup);
#pragma unroll
  for (int j = 0; j < kConfig.channels / 8; j += 2) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const ChannelPair pair = channel_pair<kConfig>(memory.scales(), 8 * (j + i / 2) + 2 * t);
      const Sum* two = sums + 4 * (j + i / 2) + i % 2 * 2;
      words[i] = pack_bf16(finish(pair, x_scale[i % 2], two[0], two[1]));
    }
    const int box = 8 * j / box_channels(kConfig);
    const int unit = j % (box_channels(kConfig) / 8) + lane / 16;
    store_matrices(results + box * kBoxBytes + row * kRowBytes + swizzled_unit<kRowBytes>(unit, row) * 16, words);
  }
  end_writes();
  warpgroup_barrier(warpgroup);
  if (thread == 0) {
    for (int box = 0; box < kConfig.channels / box_channels(kConfig); ++box) {
      store_box(out, results + box * kBoxBytes, token, (first_channel + box * box_channels(kConfig)) * 2);
    }
    commit_stores();
  }
}

// The results of a tile, once its scales are there.
template <TileConfig kConfig, class Sum>
__device__ inline void write_tile(const Arguments& a, const CUtensorMap& out, const Sum (&sums)[kConfig.channels / 2],
                                  const Memory<kConfig>& memory, int parity, int warpgroup, int token, int channel) {
  const int row = row_in_tile(warpgroup);
  wait_barrier(memory.scales_full(), parity);
  const float* token_scales = memory.scales() + 2 * kConfig.channels;
  const float x_scale[2] = {token_scales[row], token_scales[row + 8]};
  if (a.output.out_f32) {
    write_f32<kConfig>(a.output, sums, memory.scales(), x_scale, token + row, channel);
  } else {
    write_bf16<kConfig>(out, sums, memory, x_scale, warpgroup, token + warpgroup * 64, channel);
  }
  arrive(memory.scales_empty());
}

template <class Kind, TileConfig kConfig>
__device__ void consume(const Arguments& a, const CUtensorMap& out, const Memory<kConfig>& memory, int warpgroup) {
  constexpr bool kApart = kAddsChunks<typename Kind::Element>;
  // In a register: the compiler would otherwise compute the address anew before every instruction.
  Reader<kConfig> reader{{memory.bytes, __shfl_sync(0xffffffffu, memory.address, 0)}, warpgroup};
  if (kApart && warpgroup == 1) Turns{1}.pass();
  int parity = 0;
  wait_for_previous();
  for_each_tile<kConfig>(a, [&](int token, int channel) {
    typename Kind::Sum sums[kConfig.channels / 2];
    if constexpr (kApart) {
      multiply_tile_apart<Kind, kConfig>(a, sums, reader, token + row_in_tile(warpgroup), channel);
    } else {
      multiply_tile<typename Kind::Element, kConfig>(sums, reader, a.num_chunks);
    }
    write_tile<kConfig>(a, out, sums, memory, parity, warpgroup, token, channel);
    parity ^= 1;
  });
  if (kApart && warpgroup == 0) Turns{0}.wait();  // for the last pass, so that none is left over
  if (threadIdx.x % kWarpgroup == 0) wait_for_stores();
}

template <class Kind, int kIndex>
__global__ void __launch_bounds__(kThreads, 1)
    matmul_wgmma(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x,
                 const __grid_constant__ CUtensorMap out, const Arguments a) {
  constexpr TileConfig kConfig = kConfigs[kIndex];
  extern __shared__ __align__(kSwizzleAlignment) std::byte shared[];
  const Memory<kConfig> memory{shared, shared_address(shared)};
  if (threadIdx.x == 0) {
    for (int i = 0; i < kConfig.stages; ++i) {
      init_barrier(memory.full(i), 1);
      init_barrier(memory.empty(i), kConsumers * kConfig.cluster);
    }
    init_barrier(memory.scales_full(), 32);
    init_barrier(memory.scales_empty(), kConsumers * kWarpgroup);
    publish_barriers();
    prefetch_map(weight.map);
    prefetch_map(x.map);
    if (!a.output.out_f32) prefetch_map(out);
  }
  if constexpr (kConfig.cluster > 1) cluster_barrier();
  __syncthreads();
  // The same for all threads of a warp, so that operands' addresses are computed once a warp.
  const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  if (warpgroup == 0) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) produce<kConfig>(a, weight, x, memory);
    if (threadIdx.x / 32 == 1) load_scales<kConfig>(a, memory);
    __syncwarp();
  } else {
    take_registers<kConsumerRegisters>();
    consume<Kind, kConfig>(a, out, memory, warpgroup - 1);
  }
  // No CTA leaves while another may still write into it.
  if constexpr (kConfig.cluster > 1) cluster_barrier();
}

// ---- host ----

struct Tiles {
  int64_t of_tokens, of_channels;  // a cluster's
};
Tiles tiles_of(const TileConfig& c, const MatmulOp& op) {
  return {ceil_divide(op.out.dim(0), c.cluster_tokens()), ceil_divide(op.out.dim(1), c.channels)};
}

// Tokens of a tile that are loaded, in whole groups of eight rows.
int rows_of_stage(const MatmulOp& op) {
  return static_cast<int>(std::min<int64_t>(ceil_divide(op.out.dim(0), 8) * 8, kTileTokens));
}

// Measured: a chunk takes about 256 cycles, whatever of its tokens is loaded, and 3 a channel where that is more than
// its multiplications, 4 a channel.
int64_t chunk_cycles(const TileConfig& c) { return std::max(4 * c.channels, 2 * kTileTokens + 3 * c.channels); }

// The least time, if every SM makes tile after tile; a tile takes about 4 chunks' more than its chunks.
template <class Kind>
int choose_config(const MatmulOp& op, const Launch& launch) {
  int best = 0;
  int64_t best_time = INT64_MAX;
  for (size_t i = 0; i < std::size(kConfigs); ++i) {
    const TileConfig& c = kConfigs[i];
    if (!fits<Kind>(c) || op.out.dim(0) <= c.cluster_tokens() - kTileTokens) continue;
    if (c.cluster == 1 && op.out.dim(0) > kMaxUnshared) continue;
    const Tiles tiles = tiles_of(c, op);
    const int64_t rounds = ceil_divide(tiles.of_tokens * tiles.of_channels, launch.gpu->num_sms / c.cluster);
    const int64_t time = rounds * chunk_cycles(c) * (num_chunks(op) + 4);
    if (time >= best_time - best_time / 64) continue;  // a wider tile has to be worth it
    best_time = time;
    best = static_cast<int>(i);
  }
  return best;
}

template <class Kind>
std::string declines(const MatmulOp& op, const Launch& launch) {
  std::string reason = operands_decline<Kind>(op, launch);
  if (reason.empty()) reason = vector_output_declines(op);
  if (reason.empty() && Kind::kScalesChunks && op.weight.format.group_rows != kBlockRows) {
    reason = fmt::format("takes weights per block of {} rows, not {}", kBlockRows, op.weight.format.to_string());
  }
  constexpr int kNeeded = std::ranges::max(kConfigs | std::views::transform(shared_bytes));
  if (reason.empty() && kNeeded > launch.gpu->max_shared_bytes) {
    reason = fmt::format("needs {} bytes of shared memory, there are {}", kNeeded, launch.gpu->max_shared_bytes);
  }
  return reason;
}

template <class Kind, int kIndex>
void run_config(const MatmulOp& op, const Launch& launch) {
  constexpr TileConfig kConfig = kConfigs[kIndex];
  const Tiles tiles = tiles_of(kConfig, op);
  const Arguments arguments{.output = make_matmul_output(op),
                            .num_chunks = static_cast<int>(num_chunks(op)),
                            .token_tiles = static_cast<int>(tiles.of_tokens),
                            .channel_tiles = static_cast<int>(tiles.of_channels),
                            .x_rows = rows_of_stage(op)};
  const int64_t num_clusters =
      std::min<int64_t>(tiles.of_tokens * tiles.of_channels, launch.gpu->num_sms / kConfig.cluster);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_clusters * kConfig.cluster)),
                          .block = dim3(kThreads),
                          .shared_bytes = shared_bytes(kConfig),
                          .cluster = kConfig.cluster};
  allow_shared_bytes(matmul_wgmma<Kind, kIndex>, shape.shared_bytes);
  launch_kernel("hopper.matmul_wgmma", launch, shape, matmul_wgmma<Kind, kIndex>,
                make_chunk_map(op.weight.data, kConfig.channels / kConfig.cluster, 1),
                make_chunk_map(op.x.data, arguments.x_rows, 1),
                arguments.output.out_f32 ? CUtensorMap{} : make_store_map(op.out, 64, box_channels(kConfig) * 2),
                arguments);
}

template <class Kind>
void run(const MatmulOp& op, const Launch& launch) {
  const int config = choose_config<Kind>(op, launch);
  const auto run_if = [&]<int kIndex>() {
    if constexpr (fits<Kind>(kConfigs[kIndex])) {
      if (config == kIndex) run_config<Kind, kIndex>(op, launch);
    }
  };
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) { (run_if.template operator()<kIndex>(), ...); }
  (std::make_integer_sequence<int, std::size(kConfigs)>());
}

}  // namespace

Kernel<MatmulOp> hopper_matmul_f8_wgmma() {
  return {.name = "hopper.matmul_f8_wgmma", .declines = declines<F8Kind>, .run = run<F8Kind>};
}

Kernel<MatmulOp> hopper_matmul_f8_block_wgmma() {
  return {.name = "hopper.matmul_f8_block_wgmma", .declines = declines<F8BlockKind>, .run = run<F8BlockKind>};
}

Kernel<MatmulOp> hopper_matmul_i8_wgmma() {
  return {.name = "hopper.matmul_i8_wgmma", .declines = declines<I8Kind>, .run = run<I8Kind>};
}

Kernel<MatmulOp> hopper_matmul_bf16_wgmma() {
  return {.name = "hopper.matmul_bf16_wgmma", .declines = declines<BF16Kind>, .run = run<BF16Kind>};
}

}  // namespace octet
