// The wgmma matmul kernel: see matmul_wgmma.cu and expert_matmul_wgmma.cu, which choose its tiles.
#pragma once

#include <string>

#include "octet/kernels/hopper/matmul_wgmma_tiles.cuh"
#include "octet/kernels/hopper/wgmma.cuh"

namespace octet::matmul_tiles {

// Chunks whose E4M3 products the instruction adds up.
template <class Kind>
inline constexpr int kAddedChunks = Kind::kScalesChunks ? 1 : 2;
// Registers a thread; the producer gives its own to the warpgroups that hold the sums.
inline constexpr int kProducerRegisters = 40;
inline constexpr int kConsumerRegisters = 232;
inline constexpr int kBlockRows = 128;  // of a weight whose chunks have scales

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

  // Of a tile's token `row`.
  __device__ void begin(const MatmulOutput& a, const MatrixTile& tile, int row) {
    of_channel = a.chunks.of_channel(tile.channel, a.num_channels, tile.matrix);
    for (int i = 0; i < 2; ++i) of_tokens[i] = a.chunks.of_token(tile.row + row + 8 * i, a.num_tokens);
  }
  __device__ void load(const ChunkScales& scales, int chunk) {
    chunk = scales.inside(chunk);
    channel = scales.weight[of_channel + chunk];
    for (int i = 0; i < 2; ++i) tokens[i] = scales.x[of_tokens[i] + chunk];
  }
};

// The same with sums of kAddedChunks chunks added up apart, in turns with the other warpgroup.
template <class Kind, TileConfig kConfig>
__device__ inline void multiply_tile_apart(const Arguments& a, float (&sums)[kConfig.channels / 2],
                                           Reader<kConfig>& reader, const MatrixTile& tile) {
  constexpr int kAdded = kAddedChunks<Kind>;
  const Turns turns{reader.warpgroup};
  for (float& sum : sums) sum = 0.0f;
  ChunkFactors factors;
  if constexpr (Kind::kScalesChunks) {
    factors.begin(a.output, tile, row_in_tile(reader.warpgroup));
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
                                 const float (&x_scale)[2], int token, int end_token, int first_channel) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < kConfig.channels / 8; ++j) {
    const ChannelPair pair = channel_pair<kConfig>(scales, 8 * j + 2 * t);
    const int channel = first_channel + 8 * j + 2 * t;
    for (int half = 0; half < 2; ++half) {
      if (channel >= a.num_channels || token + 8 * half >= end_token) continue;
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

// Straight from registers: where a tile has fewer rows than the copy engine would write.
template <TileConfig kConfig, class Sum>
__device__ inline void write_some_bf16(const MatmulOutput& a, const Sum (&sums)[kConfig.channels / 2],
                                       const float* scales, const float (&x_scale)[2], int token, int end_token,
                                       int first_channel) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < kConfig.channels / 8; ++j) {
    const ChannelPair pair = channel_pair<kConfig>(scales, 8 * j + 2 * t);
    const int channel = first_channel + 8 * j + 2 * t;
    for (int half = 0; half < 2; ++half) {
      if (channel >= a.num_channels || token + 8 * half >= end_token) continue;
      BF16* row = static_cast<BF16*>(a.out) + (token + 8 * half) * a.out_stride;
      *reinterpret_cast<uint32_t*>(row + channel) =
          pack_bf16(finish(pair, x_scale[half], sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]));
    }
  }
}

// The results of a tile, once its scales are there.
template <TileConfig kConfig, bool kExperts, class Sum>
__device__ inline void write_tile(const Arguments& a, const CUtensorMap& out, const Sum (&sums)[kConfig.channels / 2],
                                  const Memory<kConfig>& memory, int parity, int warpgroup, const MatrixTile& tile) {
  const int row = row_in_tile(warpgroup);
  wait_barrier(memory.scales_full(), parity);
  const float* token_scales = memory.scales() + 2 * kConfig.channels;
  const float x_scale[2] = {token_scales[row], token_scales[row + 8]};
  const int end_token = kExperts ? tile.row + tile.num_rows : a.output.num_tokens;
  if (a.output.out_f32) {
    write_f32<kConfig>(a.output, sums, memory.scales(), x_scale, tile.row + row, end_token, tile.channel);
  } else if (kExperts && tile.num_rows < (warpgroup + 1) * 64) {
    write_some_bf16<kConfig>(a.output, sums, memory.scales(), x_scale, tile.row + row, end_token, tile.channel);
  } else {
    write_bf16<kConfig>(out, sums, memory, x_scale, warpgroup, tile.row + warpgroup * 64, tile.channel);
  }
  arrive(memory.scales_empty());
}

template <class Kind, TileConfig kConfig, bool kExperts>
__device__ void consume(const Arguments& a, const CUtensorMap& out, const Memory<kConfig>& memory, int warpgroup) {
  constexpr bool kApart = kAddsChunks<typename Kind::Element>;
  // In a register: the compiler would otherwise compute the address anew before every instruction.
  Reader<kConfig> reader{{memory.bytes, __shfl_sync(0xffffffffu, memory.address, 0)}, warpgroup};
  if (kApart && warpgroup == 1) Turns{1}.pass();
  int parity = 0;
  wait_for_previous();
  for_each_tile<kConfig, kExperts>(a, memory, [&](const MatrixTile& tile) {
    typename Kind::Sum sums[kConfig.channels / 2];
    if constexpr (kApart) {
      multiply_tile_apart<Kind, kConfig>(a, sums, reader, tile);
    } else {
      multiply_tile<typename Kind::Element, kConfig>(sums, reader, a.num_chunks);
    }
    write_tile<kConfig, kExperts>(a, out, sums, memory, parity, warpgroup, tile);
    parity ^= 1;
  });
  if (kApart && warpgroup == 0) Turns{0}.wait();  // for the last pass, so that none is left over
  if (threadIdx.x % kWarpgroup == 0) wait_for_stores();
}

template <class Kind, TileConfig kConfig, bool kExperts>
__device__ void multiply(const ChunkMap& weight, const ChunkMap& x, const CUtensorMap& out, const Arguments& a) {
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
  if constexpr (kExperts) {
    if (!a.follows_plan) wait_for_previous();
    if (threadIdx.x < 32) memory.experts().fill(a.experts, kConfig.cluster_tokens(), a.channel_tiles);
  }
  if constexpr (kConfig.cluster > 1) cluster_barrier();
  __syncthreads();
  // The same for all threads of a warp, so that operands' addresses are computed once a warp.
  const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  if (warpgroup == 0) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) produce<kConfig, kExperts>(a, weight, x, memory);
    if (threadIdx.x / 32 == 1) load_scales<kConfig, kExperts>(a, memory);
    __syncwarp();
  } else {
    take_registers<kConsumerRegisters>();
    consume<Kind, kConfig, kExperts>(a, out, memory, warpgroup - 1);
  }
  // No CTA leaves while another may still write into it.
  if constexpr (kConfig.cluster > 1) cluster_barrier();
}
// ---- host ----

// Measured: a chunk takes about 256 cycles, whatever of its tokens is loaded, and 3 a channel where that is more than
// its multiplications, 4 a channel.
inline int64_t chunk_cycles(const TileConfig& c) { return std::max(4 * c.channels, 2 * kTileTokens + 3 * c.channels); }
// Why the kernel cannot take an op; empty: it can, where shared memory suffices.
template <class Kind>
std::string tiles_decline(const MatmulOp& op, const Launch& launch) {
  std::string reason = operands_decline<Kind>(op, launch);
  if (reason.empty()) reason = vector_output_declines(op);
  if (reason.empty() && Kind::kScalesChunks && op.weight.format.group_rows != kBlockRows) {
    reason = fmt::format("takes weights per block of {} rows, not {}", kBlockRows, op.weight.format.to_string());
  }
  return reason;
}

}  // namespace octet::matmul_tiles
