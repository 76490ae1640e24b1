// What streams through matmul_wgmma: the tiles of a CTA in their order, its shared memory, and the warps that fill it.
#pragma once

#include "octet/kernels/hopper/cluster.cuh"
#include "octet/kernels/hopper/expert_tiles.cuh"

namespace octet::matmul_tiles {

inline constexpr int kWarpgroup = 128;
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = kWarpgroup * (1 + kConsumers);
inline constexpr int kTileTokens = 64 * kConsumers;
inline constexpr int kTokenBytes = kTileTokens * kChunkBytes;  // of a stage
inline constexpr int kBandTiles = 16;                          // of tokens

struct TileConfig {
  int channels;
  int stages;
  int cluster;  // CTAs that share weight rows, neighbours in tokens

  constexpr int cluster_tokens() const { return kTileTokens * cluster; }
};

struct Arguments {
  MatmulOutput output;
  int num_chunks;
  int token_tiles, channel_tiles;  // of clusters
  int x_rows;                      // of a tile in a stage: all, unless there are fewer; a multiple of 8
  ExpertRows experts = {};
  bool follows_plan = false;  // that may be read before the wait
};

// Shared memory: the ring's stages, the results of a tile in BF16 on their way out, scales, barriers.
constexpr int stage_bytes(const TileConfig& c) { return kTokenBytes + c.channels * kChunkBytes; }
constexpr int results_offset(const TileConfig& c) { return c.stages * stage_bytes(c); }
constexpr int scales_offset(const TileConfig& c) { return results_offset(c) + kTileTokens * c.channels * 2; }
constexpr int barriers_offset(const TileConfig& c) { return scales_offset(c) + (2 * c.channels + kTileTokens) * 4; }
constexpr int shared_bytes(const TileConfig& c) { return barriers_offset(c) + 2 * (c.stages + 1) * 8; }
// Results leave in boxes of 64 tokens x as many channels as the copy engine takes and divide the tile's.
constexpr int box_channels(const TileConfig& c) { return c.channels % 64 == 0 ? 64 : c.channels % 32 == 0 ? 32 : 16; }

// ---- the order of tiles ----

// This CTA's tile of its cluster's tile `index`. Bands of kBandTiles token tiles; within a band all its token tiles for
// the first channels, then for the next. The last tile of many tokens ends with the last token, and repeats some of the
// one before.
template <TileConfig kConfig>
__device__ MatrixTile tile_at(const Arguments& a, int index) {
  constexpr int kBand = kBandTiles * kTileTokens / kConfig.cluster_tokens();
  const int rank = kConfig.cluster > 1 ? cluster_rank() : 0;
  const int band = index / (kBand * a.channel_tiles);
  const int inside = index - band * kBand * a.channel_tiles;
  const int height = min(kBand, a.token_tiles - band * kBand);
  const int token = (band * kBand + inside % height) * kConfig.cluster_tokens() + rank * kTileTokens;
  return {0, inside / height * kConfig.channels, max(min(token, a.output.num_tokens - kTileTokens), 0), kTileTokens};
}

// The CTA's part of its cluster's rows of an expert, perhaps none.
__device__ inline MatrixTile part_of_cluster(MatrixTile tile, int rank) {
  tile.row += rank * kTileTokens;
  tile.num_rows = min(max(tile.num_rows - rank * kTileTokens, 0), kTileTokens);
  return tile;
}

// ---- roles ----

// The CTA's shared memory.
template <TileConfig kConfig>
struct Memory {
  std::byte* bytes;
  uint32_t address;

  __device__ uint32_t stage(int i) const { return address + i * stage_bytes(kConfig); }
  __device__ uint32_t full(int stage) const { return address + barriers_offset(kConfig) + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(kConfig.stages + stage); }
  __device__ uint32_t scales_full() const { return full(2 * kConfig.stages); }
  __device__ uint32_t scales_empty() const { return full(2 * kConfig.stages + 1); }
  __device__ ExpertList experts() const { return ExpertList(bytes + shared_bytes(kConfig)); }
  // Of a tile: the channels' scales, their biases, the tokens' scales.
  __device__ float* scales() const { return reinterpret_cast<float*>(bytes + scales_offset(kConfig)); }
  __device__ uint32_t results(int warpgroup) const {
    return address + results_offset(kConfig) + warpgroup * 64 * kConfig.channels * 2;
  }
};

// A place in the ring: the stage, and which of its barriers' phases is next.
template <TileConfig kConfig>
struct Place {
  int stage = 0;
  int parity = 0;

  __device__ void advance() {
    if (++stage == kConfig.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// This CTA's tiles, one after another.
template <TileConfig kConfig, bool kExperts, class Call>
__device__ inline void for_each_tile(const Arguments& a, const Memory<kConfig>& memory, Call&& call) {
  const int num_clusters = static_cast<int>(gridDim.x) / kConfig.cluster;
  const int first = static_cast<int>(blockIdx.x) / kConfig.cluster;
  if constexpr (kExperts) {
    const int rank = kConfig.cluster > 1 ? cluster_rank() : 0;
    ExpertTileCursor cursor(memory.experts(), first);
    const int num_tiles = memory.experts().num_tiles();
    for (int i = first; i < num_tiles; i += num_clusters) {
      call(part_of_cluster(cursor.at(i, kConfig.cluster_tokens(), kConfig.channels), rank));
    }
  } else {
    for (int i = first; i < a.token_tiles * a.channel_tiles; i += num_clusters) call(tile_at<kConfig>(a, i));
  }
}

template <TileConfig kConfig, bool kExperts>
__device__ MatrixTile first_tile(const Arguments& a, const Memory<kConfig>& memory, int first) {
  if constexpr (kExperts) {
    return ExpertTileCursor(memory.experts(), first).at(first, kConfig.cluster_tokens(), kConfig.channels);
  } else {
    return tile_at<kConfig>(a, first);
  }
}

// One thread: all stages. The first ones' weights come before the kernel before this one is done.
template <TileConfig kConfig, bool kExperts>
__device__ void produce(const Arguments& a, const ChunkMap& weight, const ChunkMap& x, const Memory<kConfig>& memory) {
  constexpr int kShareRows = kConfig.channels / kConfig.cluster;
  const int share = kConfig.cluster > 1 ? cluster_rank() * kShareRows : 0;
  const uint64_t policy = evict_last_policy();
  const auto load_weight = [&](const MatrixTile& tile, int chunk, int stage) {
    const int row = tile.matrix * a.output.num_channels + tile.channel;
    const uint32_t full = memory.full(stage);
    const uint32_t to = memory.stage(stage) + kTokenBytes + share * kChunkBytes;
    arrive_expecting(full, (a.x_rows + kConfig.channels) * kChunkBytes);
    if constexpr (kConfig.cluster == 1) {
      copy_box<1>(to, weight.map, weight.by_chunk, row, chunk, kShareRows, full, policy);
    } else {
      copy_box_to_all(to, weight.map, weight.by_chunk, row + share, chunk, full, (1 << kConfig.cluster) - 1);
    }
  };
  int ahead = 0;  // chunks of the first tile
  const int first = static_cast<int>(blockIdx.x) / kConfig.cluster;
  if (!kExperts || first < memory.experts().num_tiles()) {
    const MatrixTile tile = first_tile<kConfig, kExperts>(a, memory, first);
    for (; ahead < min(kConfig.stages, a.num_chunks); ++ahead) load_weight(tile, ahead, ahead);
  }
  wait_for_previous();
  Place<kConfig> place{.parity = 1};  // of a ring that nobody has used
  for_each_tile<kConfig, kExperts>(a, memory, [&](const MatrixTile& tile) {
    for (int chunk = 0; chunk < a.num_chunks; ++chunk) {
      if (ahead > 0) {
        --ahead;
      } else {
        wait_barrier(memory.empty(place.stage), place.parity);
        load_weight(tile, chunk, place.stage);
      }
      copy_box<1>(memory.stage(place.stage), x.map, x.by_chunk, tile.row, chunk, a.x_rows, memory.full(place.stage),
                  policy);
      place.advance();
    }
  });
  start_next();
}

// One warp: the scales and biases of tile after tile.
template <TileConfig kConfig, bool kExperts>
__device__ void load_scales(const Arguments& a, const Memory<kConfig>& memory) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const MatmulOutput& output = a.output;
  float* scales = memory.scales();
  int parity = 1;
  wait_for_previous();
  for_each_tile<kConfig, kExperts>(a, memory, [&](const MatrixTile& tile) {
    wait_barrier(memory.scales_empty(), parity);
    for (int i = lane; i < kConfig.channels; i += 32) {
      const int c = min(tile.channel + i, output.num_channels - 1);
      scales[i] = output.weight_scale_of(c, tile.matrix);
      scales[kConfig.channels + i] = output.bias != nullptr ? output.bias[c] : 0.0f;
    }
    for (int i = lane; i < kTileTokens; i += 32) {
      scales[2 * kConfig.channels + i] = output.x_scale_of(min(tile.row + i, output.num_tokens - 1), tile.matrix);
    }
    arrive(memory.scales_full());
    parity ^= 1;
  });
}

}  // namespace octet::matmul_tiles
