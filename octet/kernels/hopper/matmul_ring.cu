// hopper.matmul_f8_ring, matmul_f8_block_ring, matmul_i8_ring, matmul_bf16_ring: matmuls of at most 16 tokens, at the
// speed at which weights can be read; hopper.expert_matmul_f8_ring and so on: those of a mixture's experts. f8_e4m3 x
// f8_e4m3 or i8 x i8 (weight per channel or per tensor, x per token or per tensor), f8_e4m3 x f8_e4m3 with scales per
// 128 columns (x per group, weight per group or block) or bf16 x bf16; out f32 or bf16. A row of x and of the weight
// must be a multiple of 16 bytes.
//
//   - Weights stream through shared memory (weight_stream.cuh) in tiles of 16 * row_groups rows. Warp (group, chunk)
//   has
//     the sums of its 16 rows x 128 bytes of every stage. K is thus split over the warps of a CTA; their sums meet in
//     shared memory, no other CTA is involved.
//   - The warpgroup instruction multiplies 64 rows: here 16 of each of its four warps, which are of different chunks.
//   Its
//     columns are the tokens of all these chunks, of which a warp wants those of its own; the others' products are
//     worth nothing and cost nothing, since the weight is still to be read. (mma.sync, which has tiles of 16 rows,
//     widens E4M3 first: that took twice the time in which a stage comes.)
//   - A chunk's products are added apart: E4M3's because of the instruction's precision (wgmma.cuh), and where chunks
//     have scales, which are fetched while the chunk before is multiplied.
//   - The order of a sum depends on K alone, so a token's bits do not depend on the others, nor on the plan: part p of
//     8 is the sum over chunks p, p + 8, ... in their order; the whole is (0 + 4) + (1 + 5) + (2 + 6) + (3 + 7).
#include <climits>

#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/matmul_ring.h"
#include "octet/kernels/hopper/weight_stream.cuh"
#include "octet/kernels/hopper/wgmma.cuh"

namespace octet {
namespace {

constexpr int kGroupRows = 16;
constexpr int kWarpgroup = 128;
constexpr int kMaxTokens = 16;
// With more than eight tokens every CTA would read them as often as weights: not where it has many tiles.
constexpr int kMaxTokensOfManyChannels = 8;
constexpr int64_t kManyChannels = 16384;
constexpr int kParts = 8;  // of K, whose sums are made apart
// At once: the small kernels that follow fit beside two CTAs of these and wait there, and the matmul behind them starts
// to load as soon as the first CTA is done.
constexpr int kTrigger = INT_MAX;

constexpr RingConfig kConfigs[] = {
    {.tokens = 1, .row_groups = 1, .chunks = 8, .stages = 6},   //
    {.tokens = 8, .row_groups = 1, .chunks = 8, .stages = 4},   //
    {.tokens = 8, .row_groups = 3, .chunks = 4, .stages = 3},   //
    {.tokens = 16, .row_groups = 1, .chunks = 8, .stages = 3},  //
};

// Whether a thread's registers hold what it needs.
constexpr bool fits(const RingConfig& c, bool scales_chunks) { return !scales_chunks || c.row_groups == 1; }
constexpr int consumer_threads(const RingConfig& c) { return 32 * c.row_groups * c.chunks; }
constexpr int token_tiles(const RingConfig& c) { return (c.tokens + 7) / 8; }
constexpr int parts_of_warp(const RingConfig& c) { return kParts / c.chunks; }
// Two buffers for the warps' sums make a barrier less; where tokens are many there is no room.
constexpr int num_sums(const RingConfig& c) { return token_tiles(c) == 1 ? 2 : 1; }
constexpr int sums_bytes(const RingConfig& c) {
  return consumer_threads(c) * token_tiles(c) * static_cast<int>(sizeof(float4));
}
constexpr StreamShape stream_shape(const RingConfig& c) {
  return {.tile_rows = kGroupRows * c.row_groups,
          .tokens = c.tokens,
          .chunks = c.chunks,
          .stages = c.stages,
          .extra_bytes = num_sums(c) * sums_bytes(c)};
}
static_assert(std::ranges::all_of(kConfigs, [](const RingConfig& c) { return c.chunks == 8 || c.chunks == 4; }));
static_assert(std::ranges::all_of(kConfigs, [](const RingConfig& c) { return consumer_threads(c) % kWarpgroup == 0; }));
static_assert(std::ranges::all_of(kConfigs, [](const RingConfig& c) {
  return stream_shape(c).row_scales_offset() <= kCoResidentBytes - 512;
}));

// ---- multiplication ----

// Of the chunks that the warps of a warpgroup are of, and their number, the most of any warpgroup.
constexpr int first_chunk_of(const RingConfig& c, int warpgroup) { return 4 * warpgroup / c.row_groups; }
constexpr int num_chunks_of_warpgroup(const RingConfig& c) {
  int most = 0;
  for (int i = 0; i < consumer_threads(c) / kWarpgroup; ++i) {
    most = std::max(most, (4 * i + 3) / c.row_groups - first_chunk_of(c, i) + 1);
  }
  return most;
}

// The products of the warp's rows and chunk of a stage, over which the warpgroup works together. Columns of tokens that
// a stage does not have are anything and nobody's. products[i] has rows g and g + 8 of tokens 8i + 2t and 8i + 2t + 1.
template <class Kind, RingConfig kConfig>
__device__ void multiply_chunk(typename Kind::Sum (&products)[token_tiles(kConfig)][4], uint32_t stage,
                               const StreamArguments& a) {
  constexpr int kChunks = num_chunks_of_warpgroup(kConfig);
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  const int first_chunk = first_chunk_of(kConfig, warpgroup);
  const int own = static_cast<int>(threadIdx.x) / 32 / kConfig.row_groups - first_chunk;
  const uint64_t rows = wgmma_operand(stage + warpgroup * 64 * kChunkBytes);
  const int x_chunk = a.x_rows * kChunkBytes;
  const uint32_t x = stage + stream_shape(kConfig).weight_bytes() + first_chunk * x_chunk;
  typename Kind::Sum all[token_tiles(kConfig)][4 * kChunks];
#pragma unroll
  for (int i = 0; i < token_tiles(kConfig); ++i) {
    wgmma_chunk<typename Kind::Element>(all[i], rows, wgmma_operand(x + i * a.x_eights, x_chunk), 0);
  }
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < token_tiles(kConfig); ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      products[i][j] = all[i][j];
#pragma unroll
      for (int chunk = 1; chunk < kChunks; ++chunk)
        products[i][j] = own == chunk ? all[i][4 * chunk + j] : products[i][j];
    }
  }
}

// The scales of a chunk that a lane's sums are multiplied by.
template <RingConfig kConfig>
struct LaneChunkScales {
  static constexpr int kTokens = 2 * token_tiles(kConfig);  // 8i + 2t, 8i + 2t + 1
  int of_rows[2];                                           // g, g + 8
  int of_tokens[kTokens];
  float rows[2];
  float tokens[kTokens];

  // Of a tile's row `row`.
  __device__ void begin(const MatmulOutput& a, const MatrixTile& tile, int row) {
    const int first_token = tile.row + static_cast<int>(threadIdx.x) % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      of_rows[i] = a.chunks.of_channel(tile.channel + row + 8 * i, a.num_channels, tile.matrix);
    }
    for (int i = 0; i < kTokens; ++i) of_tokens[i] = a.chunks.of_token(first_token + i / 2 * 8 + i % 2, a.num_tokens);
  }
  __device__ void load(const ChunkScales& scales, int chunk) {
    chunk = scales.inside(chunk);
    for (int i = 0; i < 2; ++i) rows[i] = scales.weight[of_rows[i] + chunk];
    for (int i = 0; i < kTokens; ++i) tokens[i] = scales.x[of_tokens[i] + chunk];
  }
  __device__ void add(float (&sums)[token_tiles(kConfig)][4], const float (&part)[token_tiles(kConfig)][4]) const {
    for (int i = 0; i < token_tiles(kConfig); ++i) {
      for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(part[i][j], rows[j / 2] * tokens[2 * i + j % 2], sums[i][j]);
    }
  }
};

// The results of the CTA's tile `index`: each one's partial sums in the order of parts, then scales, bias, rounding.
template <class Sum, RingConfig kConfig, bool kExperts>
__device__ void write_tile(const StreamArguments& a, const WeightStream<stream_shape(kConfig), kExperts>& stream,
                           const Sum* sums, int index, const MatrixTile& tile) {
  constexpr int kTileRows = stream_shape(kConfig).tile_rows;
  constexpr int kStride = kConfig.row_groups * token_tiles(kConfig) * 128;  // between chunks
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * tile.num_rows; i += consumer_threads(kConfig)) {
    const int row = i % kTileRows;
    const int token = i / kTileRows;
    if (tile.channel + row >= a.output.num_channels) continue;
    const int lane = row % 8 * 4 + token % 8 / 2;
    const int place = (row / kGroupRows * token_tiles(kConfig) + token / 8) * 32 + lane;
    const Sum* parts = sums + place * 4 + row / 8 % 2 * 2 + token % 2;
    Sum sum = 0;
    for (int chunk = 0; chunk < kParts / 2; ++chunk) {
      sum += kConfig.chunks == kParts ? parts[chunk * kStride] + parts[(chunk + kParts / 2) * kStride]
                                      : parts[chunk * kStride];
    }
    store_f32_or_bf16(a.output.out, (tile.row + token) * a.output.out_stride + tile.channel + row,
                      stream.finish(a, static_cast<float>(sum), index, row, token), a.output.out_f32);
  }
}

template <RingConfig kConfig>
__device__ void consumer_barrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(consumer_threads(kConfig)) : "memory");
}

template <class Kind, RingConfig kConfig, bool kExperts>
__device__ void consume(const StreamArguments& a, const WeightStream<stream_shape(kConfig), kExperts>& stream) {
  using Sum = typename Kind::Sum;
  constexpr StreamShape kShape = stream_shape(kConfig);
  constexpr int kTiles = token_tiles(kConfig);
  constexpr int kWarpParts = parts_of_warp(kConfig);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group = warp % kConfig.row_groups;
  const int chunk = warp / kConfig.row_groups;
  stream.load_scales(a, consumer_threads(kConfig));
  const int lane_row = group * kGroupRows + lane / 4;
  StreamReader<kShape, kExperts> reader;
  auto tiles = stream.tiles(a);
  if (kExperts && stream.num_tiles == 0) return;
  MatrixTile tile = tiles.at(0);
  LaneChunkScales<kConfig> scales;
  if constexpr (Kind::kScalesChunks) {
    scales.begin(a.output, tile, lane_row);
    scales.load(a.output.chunks, chunk);
  }
  float token_scale = stream.token_scale(a, tile);
  for (int index = 0; index < stream.num_tiles; ++index) {
    const MatrixTile next_tile = tiles.at(min(index + 1, stream.num_tiles - 1));
    const float next_scale = stream.token_scale(a, next_tile);
    Sum sums[kWarpParts][kTiles][4] = {};
    for (int step = 0; step < a.steps; step += kWarpParts) {
#pragma unroll
      for (int part = 0; part < kWarpParts; ++part) {
        if (step + part == a.steps) break;
        Sum products[kTiles][4];
        if constexpr (Kind::kScalesChunks) {
          const bool is_last = step + part + 1 == a.steps;
          LaneChunkScales<kConfig> next = scales;
          if (is_last) next.begin(a.output, next_tile, lane_row);
          next.load(a.output.chunks, is_last ? chunk : (step + part + 1) * kShape.chunks + chunk);
          multiply_chunk<Kind, kConfig>(products, reader.wait(stream), a);
          scales.add(sums[part], products);
          scales = next;
        } else {
          multiply_chunk<Kind, kConfig>(products, reader.wait(stream), a);
#pragma unroll
          for (int i = 0; i < kTiles; ++i) {
            for (int j = 0; j < 4; ++j) sums[part][i][j] += products[i][j];
          }
        }
        if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
        reader.advance();
      }
    }
    auto* tile_sums =
        reinterpret_cast<Sum*>(stream.memory + kShape.extra_offset() + index % num_sums(kConfig) * sums_bytes(kConfig));
    for (int i = 0; i < kTiles; ++i) {
      if constexpr (kWarpParts == 2) {
        for (int j = 0; j < 4; ++j) sums[0][i][j] += sums[1][i][j];
      }
      using Quad = std::conditional_t<std::is_same_v<Sum, float>, float4, int4>;
      reinterpret_cast<Quad*>(tile_sums)[(warp * kTiles + i) * 32 + lane] =
          Quad{sums[0][i][0], sums[0][i][1], sums[0][i][2], sums[0][i][3]};
    }
    stream.put_token_scale(a, index, token_scale);
    consumer_barrier<kConfig>();
    write_tile<Sum, kConfig>(a, stream, tile_sums, index, tile);
    if (num_sums(kConfig) == 1) consumer_barrier<kConfig>();
    tile = next_tile;
    token_scale = next_scale;
  }
}

template <class Kind, int kIndex, bool kExperts>
__global__ void __launch_bounds__(consumer_threads(kConfigs[kIndex]) + 32, 2)
    matmul_ring(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x, const StreamArguments a) {
  constexpr RingConfig kConfig = kConfigs[kIndex];
  constexpr int kProducer = consumer_threads(kConfig);
  extern __shared__ __align__(kSwizzleAlignment) std::byte memory[];
  if (kExperts && !a.follows_plan) wait_for_previous();
  const WeightStream<stream_shape(kConfig), kExperts> stream(memory, a);
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == kProducer) {
    stream.init_barriers(consumer_threads(kConfig) / kWarpgroup);
    prefetch_map(weight.map);
    prefetch_map(x.map);
  }
  __syncthreads();
  if (thread < kProducer) {
    consume<Kind, kConfig, kExperts>(a, stream);
  } else if (thread == kProducer) {
    stream.produce(a, weight, x);
  }
}

// ---- host ----

template <class Kind, int kIndex>
void run_config(const MatmulOp& op, const Launch& launch, const RingPlan& plan) {
  constexpr RingConfig kConfig = kConfigs[kIndex];
  constexpr StreamShape kShape = stream_shape(kConfig);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(plan.num_ctas)),
                          .block = dim3(consumer_threads(kConfig) + 32),
                          .shared_bytes = stream_bytes(op, kShape, plan.num_ctas)};
  allow_shared_bytes(matmul_ring<Kind, kIndex, false>, shape.shared_bytes);
  launch_kernel("hopper.matmul_ring", launch, shape, matmul_ring<Kind, kIndex, false>,
                make_chunk_map(op.weight.data, kShape.tile_rows, kShape.chunks),
                make_chunk_map(op.x.data, static_cast<int>(op.out.dim(0)), kShape.chunks),
                make_stream_arguments(op, kShape, plan.num_ctas, plan.trigger));
}

template <class Kind>
void run_kind(const MatmulOp& op, const Launch& launch, const RingPlan& plan) {
  OCTET_CHECK(fits(kConfigs[plan.config], Kind::kScalesChunks));
  const auto run_if = [&]<int kIndex>() {
    if constexpr (fits(kConfigs[kIndex], Kind::kScalesChunks)) {
      if (plan.config == kIndex) run_config<Kind, kIndex>(op, launch, plan);
    }
  };
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) { (run_if.template operator()<kIndex>(), ...); }
  (std::make_integer_sequence<int, std::size(kConfigs)>());
}

// The smallest configuration with these row groups that takes so many tokens.
int find_config(int64_t num_tokens, int row_groups) {
  for (size_t i = 0; i < std::size(kConfigs); ++i) {
    if (kConfigs[i].tokens >= num_tokens && kConfigs[i].row_groups == row_groups) return static_cast<int>(i);
  }
  fail(ErrorCode::kInternal, "the ring has no configuration of {} row groups for {} tokens", row_groups, num_tokens);
}

template <class Kind>
std::string declines(const MatmulOp& op, const Launch& launch) {
  const int most = op.out.dim(1) < kManyChannels ? kMaxTokens : kMaxTokensOfManyChannels;
  if (op.out.dim(0) > most) {
    return fmt::format("takes at most {} tokens with {} channels, not {}", most, op.out.dim(1), op.out.dim(0));
  }
  std::string reason = operands_decline<Kind>(op, launch);
  if (!reason.empty()) return reason;
  const RingPlan plan = plan_ring(op);
  const int64_t needed = stream_bytes(op, stream_shape(kConfigs[plan.config]), plan.num_ctas);
  if (needed > launch.gpu->max_shared_bytes) {
    return fmt::format("needs {} bytes of shared memory, there are {}", needed, launch.gpu->max_shared_bytes);
  }
  return "";
}

void run(const MatmulOp& op, const Launch& launch) { run_ring(op, launch, plan_ring(op)); }

// ---- experts ----

// An expert has no more rows than the step has tokens.
int config_of_experts(const ExpertMatmulOp& op) { return find_config(most_rows(op), 1); }

// As many CTAs as are there at once; how many tiles there are is not known here.
int64_t ctas_of_experts(const Launch& launch) { return 2 * int64_t{launch.gpu->num_sms}; }

template <class Kind>
std::string experts_ring_decline(const ExpertMatmulOp& op, const Launch& launch) {
  if (most_rows(op) > kMaxTokens) return fmt::format("takes at most {} tokens, not {}", kMaxTokens, most_rows(op));
  std::string reason = experts_decline<Kind>(op, launch);
  if (!reason.empty()) return reason;
  const int64_t needed = stream_bytes(op, stream_shape(kConfigs[config_of_experts(op)]), ctas_of_experts(launch));
  if (needed > launch.gpu->max_shared_bytes) {
    return fmt::format("needs {} bytes of shared memory, there are {}", needed, launch.gpu->max_shared_bytes);
  }
  return "";
}

template <class Kind, int kIndex>
void run_experts_config(const ExpertMatmulOp& op, const Launch& launch) {
  constexpr StreamShape kShape = stream_shape(kConfigs[kIndex]);
  const auto num_ctas = static_cast<int>(ctas_of_experts(launch));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_ctas)),
                          .block = dim3(consumer_threads(kConfigs[kIndex]) + 32),
                          .shared_bytes = stream_bytes(op, kShape, num_ctas)};
  const StreamArguments arguments = make_stream_arguments(op, kShape, num_ctas, kTrigger);
  allow_shared_bytes(matmul_ring<Kind, kIndex, true>, shape.shared_bytes);
  launch_kernel("hopper.expert_matmul_ring", launch, shape, matmul_ring<Kind, kIndex, true>,
                make_chunk_map(all_matrices(op.weight.data), kShape.tile_rows, kShape.chunks),
                make_chunk_map(op.x.data, arguments.x_rows, kShape.chunks), arguments);
}

template <class Kind>
void run_experts(const ExpertMatmulOp& op, const Launch& launch) {
  const int config = config_of_experts(op);
  const auto run_if = [&]<int kIndex>() {
    if constexpr (kConfigs[kIndex].row_groups == 1) {
      if (config == kIndex) run_experts_config<Kind, kIndex>(op, launch);
    }
  };
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) { (run_if.template operator()<kIndex>(), ...); }
  (std::make_integer_sequence<int, std::size(kConfigs)>());
}

}  // namespace

std::span<const RingConfig> ring_configs() { return kConfigs; }

bool takes_ring_config(const MatmulOp& op, int config) {
  return op.out.dim(0) <= kConfigs[config].tokens &&
         fits(kConfigs[config], op.x.format.granularity == Granularity::kGroup);
}

// As measured (matmul_bench tune, and in whole steps). Two CTAs an SM keep more bytes in flight than one, as long as
// each has several stages to load; as many CTAs as tiles, where all fit at once, beat an uneven number of tiles each.
// One CTA an SM where that is enough leaves room for those of attention, which then start while this one still loads.
RingPlan plan_ring(const MatmulOp& op) {
  const int64_t num_tokens = op.out.dim(0);
  const int64_t num_channels = op.out.dim(1);
  const int64_t row_bytes = op.weight.data.dim(1) * dtype_bytes(op.weight.data.dtype);
  const int64_t triple_tiles = ceil_divide(num_channels, 3 * kGroupRows);
  int row_groups = 1;
  int64_t num_ctas = 256;
  if (num_channels * row_bytes < int64_t{32} << 20) {
    num_ctas = num_tokens > 8 ? 256 : 128;
  } else if (num_tokens <= 8 && op.x.format.granularity != Granularity::kGroup && num_channels % 4096 != 0 &&
             triple_tiles >= 200 && triple_tiles <= 2 * 132) {
    row_groups = 3;
    num_ctas = triple_tiles;
  }
  const int config = find_config(num_tokens, row_groups);
  num_ctas = std::min(num_ctas, stream_shape(kConfigs[config]).num_tiles(num_channels));
  return {.config = config, .num_ctas = static_cast<int>(num_ctas), .trigger = kTrigger};
}

void run_ring(const MatmulOp& op, const Launch& launch, const RingPlan& plan) {
  if (takes_formats<F8Kind>(op.x.format, op.weight.format)) return run_kind<F8Kind>(op, launch, plan);
  if (takes_formats<F8BlockKind>(op.x.format, op.weight.format)) return run_kind<F8BlockKind>(op, launch, plan);
  if (takes_formats<I8Kind>(op.x.format, op.weight.format)) return run_kind<I8Kind>(op, launch, plan);
  run_kind<BF16Kind>(op, launch, plan);
}

Kernel<MatmulOp> hopper_matmul_f8_ring() {
  return {.name = "hopper.matmul_f8_ring", .declines = declines<F8Kind>, .run = run};
}

Kernel<MatmulOp> hopper_matmul_f8_block_ring() {
  return {.name = "hopper.matmul_f8_block_ring", .declines = declines<F8BlockKind>, .run = run};
}

Kernel<MatmulOp> hopper_matmul_i8_ring() {
  return {.name = "hopper.matmul_i8_ring", .declines = declines<I8Kind>, .run = run};
}

Kernel<MatmulOp> hopper_matmul_bf16_ring() {
  return {.name = "hopper.matmul_bf16_ring", .declines = declines<BF16Kind>, .run = run};
}

std::vector<Kernel<ExpertMatmulOp>> hopper_expert_matmul_ring() {
  return {
      {.name = "hopper.expert_matmul_f8_ring", .declines = experts_ring_decline<F8Kind>, .run = run_experts<F8Kind>},
      {.name = "hopper.expert_matmul_f8_block_ring",
       .declines = experts_ring_decline<F8BlockKind>,
       .run = run_experts<F8BlockKind>},
      {.name = "hopper.expert_matmul_i8_ring", .declines = experts_ring_decline<I8Kind>, .run = run_experts<I8Kind>},
      {.name = "hopper.expert_matmul_bf16_ring",
       .declines = experts_ring_decline<BF16Kind>,
       .run = run_experts<BF16Kind>},
  };
}

}  // namespace octet
