// A weight streamed through a ring of stages in shared memory, for matmuls of few tokens: what their time is.
//
//   - A CTA, or a cluster that splits K, owns a run of tiles of weight rows. A stage is `chunks` chunks of 128 bytes of
//   a tile's rows and of all
//     tokens' rows. One producer thread loads stage after stage, tile after tile, without a break between tiles.
//   - The ring is filled with weights before the kernel before this one is done. The next kernel may start when
//     `trigger` stages are still to be loaded, or at once when there are no more; where registers and shared memory
//     allow, its CTAs fit beside.
//   - Nothing is read from memory at the end: weight scales and biases come to shared memory before the wait, token
//     scales right after it.
//   - With experts (expert_tiles.cuh) a CTA owns a run of tiles of the experts that have rows, and brings 8 rows of x
//   at
//     a time, as many as a tile's expert has. It can begin when it may read the step's plan.
#pragma once

#include "octet/kernels/hopper/expert_tiles.cuh"

namespace octet {

struct StreamShape {
  int tile_rows;
  int tokens;
  int chunks;
  int stages;
  int extra_bytes;   // the kernel's own, behind the stages
  int splits = 1;    // of K, over the CTAs of a cluster
  int row_unit = 1;  // a stage has a multiple of so many rows of tokens

  constexpr int weight_bytes() const { return tile_rows * chunks * kChunkBytes; }
  constexpr int x_bytes() const { return tokens * chunks * kChunkBytes; }
  constexpr int stage_bytes() const {
    return (weight_bytes() + x_bytes() + kSwizzleAlignment - 1) / kSwizzleAlignment * kSwizzleAlignment;
  }
  // Then the stages' barriers, the scales of tokens and what stream_bytes() adds for the CTA's rows.
  constexpr int extra_offset() const { return stages * stage_bytes(); }
  constexpr int barriers_offset() const { return extra_offset() + extra_bytes; }
  constexpr int token_scales_offset() const { return barriers_offset() + 2 * stages * 8; }
  constexpr int row_scales_offset() const { return token_scales_offset() + tokens * static_cast<int>(sizeof(float)); }

  constexpr int64_t num_tiles(int64_t num_channels) const { return ceil_divide(num_channels, tile_rows); }
};

// Two CTAs, of one kernel or of two, share the 228 KiB of an SM; a KiB of each is the system's.
inline constexpr int kCoResidentBytes = 113 << 10;

struct StreamArguments {
  MatmulOutput output;
  int num_tiles, steps;  // of a matrix's rows; stages in a tile's K
  int max_cta_rows;
  int trigger;
  int x_rows;    // of a chunk in a copy: those that there are, no more than the copy engine has to bring
  int x_eights;  // bytes between eights of tokens in a stage
  ExpertRows experts = {};
  bool follows_plan = false;  // the plan may be read before the wait
};

// Of weights, whose scales a CTA keeps: it has a run of all tiles that there may be.
inline int64_t max_cta_rows(const ExpertMatmulOp& op, const StreamShape& shape, int num_ctas) {
  const int64_t num_rows = op.plan.order.dim(0);
  const int64_t token_tiles = std::min(op.plan.num_experts(), num_rows) + num_rows / shape.tokens;
  return ceil_divide(token_tiles * shape.num_tiles(op.out.dim(1)), num_ctas) * shape.tile_rows;
}

// A copy brings a multiple of row_unit rows of x. num_ctas: how many own tiles; with a split of K so many clusters.
inline StreamArguments make_stream_arguments(const MatmulOp& op, const StreamShape& shape, int num_ctas, int trigger) {
  const int64_t num_tiles = shape.num_tiles(op.out.dim(1));
  return {.output = make_matmul_output(op),
          .num_tiles = static_cast<int>(num_tiles),
          .steps = static_cast<int>(ceil_divide(num_chunks(op), shape.chunks)),
          .max_cta_rows = static_cast<int>(ceil_divide(num_tiles, num_ctas) * shape.tile_rows),
          .trigger = trigger,
          .x_rows = static_cast<int>(ceil_divide(op.out.dim(0), shape.row_unit) * shape.row_unit),
          .x_eights = 8 * kChunkBytes};
}
inline StreamArguments make_stream_arguments(const ExpertMatmulOp& op, const StreamShape& shape, int num_ctas,
                                             int trigger) {
  StreamArguments arguments = make_stream_arguments(first_matrix(op), shape, num_ctas, trigger);
  arguments.max_cta_rows = static_cast<int>(max_cta_rows(op, shape, num_ctas));
  arguments.x_rows =
      static_cast<int>(std::min<int64_t>(ceil_divide(most_rows(op), shape.row_unit) * shape.row_unit, 8));
  arguments.x_eights = shape.chunks * arguments.x_rows * kChunkBytes;
  arguments.experts = expert_rows(op.plan);
  arguments.follows_plan = op.follows_plan;
  return arguments;
}

inline int64_t stream_bytes(const MatmulOp& op, const StreamShape& shape, int num_ctas) {
  const int64_t rows = ceil_divide(shape.num_tiles(op.out.dim(1)), num_ctas) * shape.tile_rows;
  return shape.row_scales_offset() + rows * (op.bias ? 2 : 1) * static_cast<int64_t>(sizeof(float));
}

// Behind the scales of a CTA's rows: two tiles' scales of tokens, then the list of experts.
inline int64_t stream_bytes(const ExpertMatmulOp& op, const StreamShape& shape, int num_ctas) {
  const int64_t floats = max_cta_rows(op, shape, num_ctas) + 2 * shape.tokens;
  return shape.row_scales_offset() + floats * static_cast<int64_t>(sizeof(float)) + expert_list_bytes(op);
}

// ---- device ----

// One CTA's tiles, in rising order from its first, 0, on.
template <StreamShape kShape, bool kExperts>
struct StreamTiles {
  const StreamArguments& a;
  int first_tile;

  __device__ StreamTiles(const StreamArguments& arguments, const ExpertList&, int first)
      : a(arguments), first_tile(first) {}
  __device__ MatrixTile at(int tile) { return {0, (first_tile + tile) * kShape.tile_rows, 0, a.output.num_tokens}; }
};
template <StreamShape kShape>
struct StreamTiles<kShape, true> {
  ExpertTileCursor cursor;
  int first_tile;

  __device__ StreamTiles(const StreamArguments&, const ExpertList& list, int first)
      : cursor(list, first), first_tile(first) {}
  __device__ MatrixTile at(int tile) { return cursor.at(first_tile + tile, kShape.tokens, kShape.tile_rows); }
};

// One CTA's part of the stream and its shared memory.
template <StreamShape kShape, bool kExperts = false>
struct WeightStream {
  using Tiles = StreamTiles<kShape, kExperts>;

  std::byte* memory;
  uint32_t stages;  // its address; a stage's barriers lie 8 bytes apart
  int first_tile, num_tiles;
  int rank;  // which part of K
  int first_step, steps;

  // With experts once their plan may be read, and with all threads of the CTA.
  __device__ WeightStream(std::byte* shared, const StreamArguments& a)
      : memory(shared), stages(shared_address(shared)) {
    const auto owner = static_cast<int64_t>(blockIdx.x / kShape.splits);
    const int num_owners = static_cast<int>(gridDim.x) / kShape.splits;
    int all_tiles = a.num_tiles;
    if constexpr (kExperts) {
      if (threadIdx.x < 32) experts(a).fill(a.experts, kShape.tokens, a.num_tiles);
      __syncthreads();
      all_tiles = experts(a).num_tiles();
    }
    first_tile = static_cast<int>(owner * all_tiles / num_owners);
    num_tiles = static_cast<int>((owner + 1) * all_tiles / num_owners) - first_tile;
    const int share = (a.steps + kShape.splits - 1) / kShape.splits;
    rank = static_cast<int>(blockIdx.x) % kShape.splits;
    first_step = rank * share;
    steps = min(share, a.steps - first_step);
  }
  __device__ uint32_t full(int stage) const { return stages + kShape.barriers_offset() + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(kShape.stages + stage); }
  __device__ float* row_scales() const { return reinterpret_cast<float*>(memory + kShape.row_scales_offset()); }
  // Of the tokens of the CTA's tile; with experts two tiles have places of their own.
  __device__ float* token_scales(const StreamArguments& a, int tile) const {
    if constexpr (kExperts) return row_scales() + a.max_cta_rows + tile % 2 * kShape.tokens;
    return reinterpret_cast<float*>(memory + kShape.token_scales_offset());
  }
  __device__ ExpertList experts(const StreamArguments& a) const {
    return ExpertList(reinterpret_cast<std::byte*>(row_scales() + a.max_cta_rows + 2 * kShape.tokens));
  }
  __device__ Tiles tiles(const StreamArguments& a) const { return Tiles(a, experts(a), first_tile); }
  __device__ int chunk_of(int i) const { return (first_step + i % steps) * kShape.chunks; }  // of the CTA's stage i

  // One thread, before a __syncthreads. `readers`: who call release for a stage.
  __device__ void init_barriers(int readers) const {
    for (int i = 0; i < kShape.stages; ++i) {
      init_barrier(full(i), 1);
      init_barrier(empty(i), readers);
    }
    publish_barriers();
  }

  // One thread: all of the CTA's stages, in order.
  __device__ void produce(const StreamArguments& a, const ChunkMap& weight, const ChunkMap& x) const {
    const uint64_t weight_policy = evict_first_policy();
    const uint64_t x_policy = evict_last_policy();
    const auto copies_of_x = [&](const MatrixTile& tile) { return kExperts ? (tile.num_rows + 7) / 8 : 1; };
    const auto load_weight = [&](int i, const MatrixTile& tile) {
      const uint32_t barrier = full(i % kShape.stages);
      // Whatever lies beyond the edges is zeroed, or another matrix's, and counted too.
      arrive_expecting(barrier, kShape.weight_bytes() + copies_of_x(tile) * a.x_rows * kShape.chunks * kChunkBytes);
      copy_box<kShape.chunks>(stages + i % kShape.stages * kShape.stage_bytes(), weight.map, weight.by_chunk,
                              tile.matrix * a.output.num_channels + tile.channel, chunk_of(i), kShape.tile_rows,
                              barrier, weight_policy);
    };
    const auto load_x = [&](int i, const MatrixTile& tile) {
      const uint32_t to = stages + i % kShape.stages * kShape.stage_bytes() + kShape.weight_bytes();
      for (int copy = 0; copy < copies_of_x(tile); ++copy) {
        copy_box<kShape.chunks>(to + copy * a.x_eights, x.map, x.by_chunk, tile.row + 8 * copy, chunk_of(i), a.x_rows,
                                full(i % kShape.stages), x_policy);
      }
    };
    const int total = num_tiles * steps;
    const int filled = min(total, kShape.stages);
    const int trigger = a.trigger >= total ? 0 : max(filled, total - a.trigger);
    Tiles tiles = this->tiles(a);
    Tiles tiles_of_x = tiles;
    if constexpr (kExperts) {
      if (total == 0) return start_next();
    }
    for (int i = 0; i < filled; ++i) load_weight(i, tiles.at(i / steps));
    if (trigger == 0) start_next();
    wait_for_previous();
    for (int i = 0; i < filled; ++i) load_x(i, tiles_of_x.at(i / steps));
    MatrixTile tile = tiles.at(min(filled, total - 1) / steps);
    for (int i = filled; i < total; ++i) {
      if (i == trigger) start_next();
      if (i % steps == 0) tile = tiles.at(i / steps);
      wait_barrier(empty(i % kShape.stages), (i / kShape.stages - 1) % 2);
      load_weight(i, tile);
      load_x(i, tile);
    }
    if (trigger >= total) start_next();
  }

  // All readers, threads 0 .. num_threads - 1: weight scales, then the wait, then token scales. Seen after a barrier.
  __device__ void load_scales(const StreamArguments& a, int num_threads) const {
    const auto thread = static_cast<int>(threadIdx.x);
    Tiles tiles = this->tiles(a);
    for (int i = thread; i < num_tiles * kShape.tile_rows; i += num_threads) {
      const MatrixTile tile = tiles.at(i / kShape.tile_rows);
      const int row = min(tile.channel + i % kShape.tile_rows, a.output.num_channels - 1);
      row_scales()[i] = a.output.weight_scale_of(row, tile.matrix);
      if (a.output.bias != nullptr) row_scales()[a.max_cta_rows + i] = a.output.bias[row];
    }
    wait_for_previous();
    if constexpr (!kExperts) {
      for (int i = thread; i < a.output.num_tokens; i += num_threads) token_scales(a, 0)[i] = a.output.x_scale_of(i, 0);
    }
  }
  // With experts: the scale of the thread's token of a tile, asked for early, and put where all readers see it after
  // their next barrier.
  __device__ float token_scale(const StreamArguments& a, const MatrixTile& tile) const {
    const auto thread = static_cast<int>(threadIdx.x);
    return kExperts && thread < tile.num_rows ? a.output.x_scale_of(tile.row + thread, tile.matrix) : 0.0f;
  }
  __device__ void put_token_scale(const StreamArguments& a, int tile, float scale) const {
    const auto thread = static_cast<int>(threadIdx.x);
    if (kExperts && thread < kShape.tokens) token_scales(a, tile)[thread] = scale;
  }
  // The result of a sum of the CTA's tile `tile`.
  __device__ float finish(const StreamArguments& a, float sum, int tile, int row, int token) const {
    const int place = tile * kShape.tile_rows + row;
    // Roundings are spelled out: every kernel that is made of this must give the same bits.
    const float value = __fmul_rn(__fmul_rn(token_scales(a, tile)[token], row_scales()[place]), sum);
    return a.output.bias != nullptr ? __fadd_rn(value, row_scales()[a.max_cta_rows + place]) : value;
  }
};

// A reader's place in the ring.
template <StreamShape kShape, bool kExperts = false>
struct StreamReader {
  int stage = 0;
  int parity = 0;

  // The address of the next stage, when it is there.
  __device__ uint32_t wait(const WeightStream<kShape, kExperts>& stream) const {
    wait_barrier(stream.full(stage), parity);
    return stream.stages + stage * kShape.stage_bytes();
  }
  // One thread for each of the readers that init_barriers() was told of, once all its reads are done.
  __device__ void release(const WeightStream<kShape, kExperts>& stream) const { arrive(stream.empty(stage)); }
  __device__ void advance() {
    if (++stage == kShape.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace octet
