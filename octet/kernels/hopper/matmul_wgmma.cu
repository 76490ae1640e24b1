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
#include "octet/kernels/hopper/matmul_wgmma.cuh"

namespace octet {
namespace {

using namespace matmul_tiles;

constexpr TileConfig kConfigs[] = {
    {.channels = 64, .stages = 8, .cluster = 1},  {.channels = 96, .stages = 7, .cluster = 1},
    {.channels = 128, .stages = 6, .cluster = 1}, {.channels = 128, .stages = 6, .cluster = 2},
    {.channels = 160, .stages = 5, .cluster = 2}, {.channels = 176, .stages = 4, .cluster = 2},
    {.channels = 192, .stages = 4, .cluster = 2}, {.channels = 256, .stages = 3, .cluster = 2},
};
constexpr int64_t kMaxUnshared = 1024;  // tokens, up to which CTAs may read all weight rows themselves

template <class Kind, int kIndex>
__global__ void __launch_bounds__(kThreads, 1)
    matmul_wgmma(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x,
                 const __grid_constant__ CUtensorMap out, const Arguments a) {
  multiply<Kind, kConfigs[kIndex], false>(weight, x, out, a);
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
  std::string reason = tiles_decline<Kind>(op, launch);
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
