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
#pragma once

#include "octet/kernels/hopper/matmul_operands.cuh"

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
  int num_tiles, steps;  // of the weight's rows; stages in a tile's K
  int max_cta_rows;
  int trigger;
  int x_rows;  // of a chunk in a stage: those that there are, no more than the copy engine has to bring
};

// num_ctas: how many own tiles; with a split of K so many clusters.
inline StreamArguments make_stream_arguments(const MatmulOp& op, const StreamShape& shape, int num_ctas, int trigger) {
  const int64_t num_tiles = shape.num_tiles(op.out.dim(1));
  return {.output = make_matmul_output(op),
          .num_tiles = static_cast<int>(num_tiles),
          .steps = static_cast<int>(ceil_divide(num_chunks(op), shape.chunks)),
          .max_cta_rows = static_cast<int>(ceil_divide(num_tiles, num_ctas) * shape.tile_rows),
          .trigger = trigger,
          .x_rows = static_cast<int>(ceil_divide(op.out.dim(0), shape.row_unit) * shape.row_unit)};
}

inline int64_t stream_bytes(const MatmulOp& op, const StreamShape& shape, int num_ctas) {
  const int64_t rows = ceil_divide(shape.num_tiles(op.out.dim(1)), num_ctas) * shape.tile_rows;
  return shape.row_scales_offset() + rows * (op.bias ? 2 : 1) * static_cast<int64_t>(sizeof(float));
}

// ---- device ----

// One CTA's part of the stream and its shared memory.
template <StreamShape kShape>
struct WeightStream {
  std::byte* memory;
  uint32_t stages;  // its address; a stage's barriers lie 8 bytes apart
  int first_tile, num_tiles;
  int rank;  // which part of K
  int first_step, steps;

  __device__ WeightStream(std::byte* shared, const StreamArguments& a)
      : memory(shared), stages(shared_address(shared)) {
    const auto owner = static_cast<int64_t>(blockIdx.x / kShape.splits);
    const int num_owners = static_cast<int>(gridDim.x) / kShape.splits;
    first_tile = static_cast<int>(owner * a.num_tiles / num_owners);
    num_tiles = static_cast<int>((owner + 1) * a.num_tiles / num_owners) - first_tile;
    const int share = (a.steps + kShape.splits - 1) / kShape.splits;
    rank = static_cast<int>(blockIdx.x) % kShape.splits;
    first_step = rank * share;
    steps = min(share, a.steps - first_step);
  }
  __device__ uint32_t full(int stage) const { return stages + kShape.barriers_offset() + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(kShape.stages + stage); }
  __device__ float* token_scales() const { return reinterpret_cast<float*>(memory + kShape.token_scales_offset()); }
  __device__ float* row_scales() const { return reinterpret_cast<float*>(memory + kShape.row_scales_offset()); }
  __device__ int row_of(int tile) const { return (first_tile + tile) * kShape.tile_rows; }
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
    const auto load_weight = [&](int i) {
      const uint32_t barrier = full(i % kShape.stages);
      // Whatever lies beyond the edges is zeroed and counted too.
      arrive_expecting(barrier, kShape.weight_bytes() + a.x_rows * kShape.chunks * kChunkBytes);
      copy_box<kShape.chunks>(stages + i % kShape.stages * kShape.stage_bytes(), weight.map, weight.by_chunk,
                              row_of(i / steps), chunk_of(i), kShape.tile_rows, barrier, weight_policy);
    };
    const auto load_x = [&](int i) {
      copy_box<kShape.chunks>(stages + i % kShape.stages * kShape.stage_bytes() + kShape.weight_bytes(), x.map,
                              x.by_chunk, 0, chunk_of(i), a.x_rows, full(i % kShape.stages), x_policy);
    };
    const int total = num_tiles * steps;
    const int filled = min(total, kShape.stages);
    const int trigger = a.trigger >= total ? 0 : max(filled, total - a.trigger);
    for (int i = 0; i < filled; ++i) load_weight(i);
    if (trigger == 0) start_next();
    wait_for_previous();
    for (int i = 0; i < filled; ++i) load_x(i);
    for (int i = filled; i < total; ++i) {
      if (i == trigger) start_next();
      wait_barrier(empty(i % kShape.stages), (i / kShape.stages - 1) % 2);
      load_weight(i);
      load_x(i);
    }
    if (trigger >= total) start_next();
  }

  // All readers, threads 0 .. num_threads - 1: weight scales, then the wait, then token scales. Seen after a barrier.
  __device__ void load_scales(const StreamArguments& a, int num_threads) const {
    const auto thread = static_cast<int>(threadIdx.x);
    for (int i = thread; i < num_tiles * kShape.tile_rows; i += num_threads) {
      const int row = min(row_of(0) + i, a.output.num_channels - 1);
      row_scales()[i] = a.output.weight_scale_of(row);
      if (a.output.bias != nullptr) row_scales()[a.max_cta_rows + i] = a.output.bias[row];
    }
    wait_for_previous();
    for (int i = thread; i < a.output.num_tokens; i += num_threads) token_scales()[i] = a.output.x_scale_of(i);
  }
  // The result of a sum, `row` from the CTA's first on.
  __device__ float finish(const StreamArguments& a, float sum, int row, int token) const {
    // Roundings are spelled out: every kernel that is made of this must give the same bits.
    const float value = __fmul_rn(__fmul_rn(token_scales()[token], row_scales()[row]), sum);
    return a.output.bias != nullptr ? __fadd_rn(value, row_scales()[a.max_cta_rows + row]) : value;
  }
};

// A reader's place in the ring.
template <StreamShape kShape>
struct StreamReader {
  int stage = 0;
  int parity = 0;

  // The address of the next stage, when it is there.
  __device__ uint32_t wait(const WeightStream<kShape>& stream) const {
    wait_barrier(stream.full(stage), parity);
    return stream.stages + stage * kShape.stage_bytes();
  }
  // One thread for each of the readers that init_barriers() was told of, once all its reads are done.
  __device__ void release(const WeightStream<kShape>& stream) const { arrive(stream.empty(stage)); }
  __device__ void advance() {
    if (++stage == kShape.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace octet
