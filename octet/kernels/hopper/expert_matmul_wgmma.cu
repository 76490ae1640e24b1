// hopper.expert_matmul_f8_wgmma, expert_matmul_f8_block_wgmma, expert_matmul_i8_wgmma, expert_matmul_bf16_wgmma: the
// products of a mixture's experts (octet/ops/expert_matmul.h) of any number of rows, by the kernel of matmul_wgmma.cu,
// whose operands they take. What a tile multiplies beyond its expert's rows is others' or nobody's, and is not written.
#include <algorithm>
#include <iterator>
#include <ranges>

#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/matmul_wgmma.cuh"

namespace octet {
namespace {

using namespace matmul_tiles;

// Room for the list of experts beside them.
constexpr TileConfig kConfigs[] = {
    {.channels = 64, .stages = 8, .cluster = 1},  {.channels = 128, .stages = 5, .cluster = 1},
    {.channels = 128, .stages = 5, .cluster = 2}, {.channels = 192, .stages = 4, .cluster = 2},
    {.channels = 256, .stages = 3, .cluster = 2},
};

// As choose_config, of experts that have equally many rows.
template <class Kind>
int choose_config(const ExpertMatmulOp& op, const Launch& launch) {
  int best = 0;
  int64_t best_time = INT64_MAX;
  const int64_t hit = std::min(op.plan.num_experts(), op.plan.order.dim(0));
  for (size_t i = 0; i < std::size(kConfigs); ++i) {
    const TileConfig& c = kConfigs[i];
    if (!fits<Kind>(c)) continue;
    const int64_t tiles = hit * ceil_divide(mean_rows(op), c.cluster_tokens()) * ceil_divide(op.out.dim(1), c.channels);
    const int64_t rounds = ceil_divide(tiles, launch.gpu->num_sms / c.cluster);
    const int64_t time = rounds * chunk_cycles(c) * (num_chunks(first_matrix(op)) + 4);
    if (time >= best_time - best_time / 64) continue;
    best_time = time;
    best = static_cast<int>(i);
  }
  return best;
}

template <class Kind>
std::string declines(const ExpertMatmulOp& op, const Launch& launch) {
  std::string reason = experts_decline<Kind>(op, launch);
  if (!reason.empty()) return reason;
  reason = tiles_decline<Kind>(first_matrix(op), launch);
  constexpr int kStages = std::ranges::max(kConfigs | std::views::transform(shared_bytes));
  if (const int64_t needed = kStages + expert_list_bytes(op); reason.empty() && needed > launch.gpu->max_shared_bytes) {
    reason = fmt::format("needs {} bytes of shared memory, there are {}", needed, launch.gpu->max_shared_bytes);
  }
  return reason;
}

template <class Kind, int kIndex>
__global__ void __launch_bounds__(kThreads, 1)
    expert_matmul_wgmma(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x,
                        const __grid_constant__ CUtensorMap out, const Arguments a) {
  multiply<Kind, kConfigs[kIndex], true>(weight, x, out, a);
}

template <class Kind, int kIndex>
void run_config(const ExpertMatmulOp& op, const Launch& launch) {
  constexpr TileConfig kConfig = kConfigs[kIndex];
  const MatmulOp first = first_matrix(op);
  const Arguments arguments{
      .output = make_matmul_output(first),
      .num_chunks = static_cast<int>(num_chunks(first)),
      .token_tiles = 0,
      .channel_tiles = static_cast<int>(ceil_divide(op.out.dim(1), kConfig.channels)),
      .x_rows = static_cast<int>(std::min<int64_t>(ceil_divide(most_rows(op), 8) * 8, kTileTokens)),
      .experts = expert_rows(op.plan),
      .follows_plan = op.follows_plan};
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(launch.gpu->num_sms / kConfig.cluster * kConfig.cluster)),
                          .block = dim3(kThreads),
                          .shared_bytes = shared_bytes(kConfig) + expert_list_bytes(op),
                          .cluster = kConfig.cluster};
  allow_shared_bytes(expert_matmul_wgmma<Kind, kIndex>, shape.shared_bytes);
  launch_kernel("hopper.expert_matmul_wgmma", launch, shape, expert_matmul_wgmma<Kind, kIndex>,
                make_chunk_map(all_matrices(op.weight.data), kConfig.channels / kConfig.cluster, 1),
                make_chunk_map(op.x.data, arguments.x_rows, 1),
                arguments.output.out_f32 ? CUtensorMap{} : make_store_map(op.out, 64, box_channels(kConfig) * 2),
                arguments);
}

template <class Kind>
void run(const ExpertMatmulOp& op, const Launch& launch) {
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

std::vector<Kernel<ExpertMatmulOp>> hopper_expert_matmul_wgmma() {
  return {
      {.name = "hopper.expert_matmul_f8_wgmma", .declines = declines<F8Kind>, .run = run<F8Kind>},
      {.name = "hopper.expert_matmul_f8_block_wgmma", .declines = declines<F8BlockKind>, .run = run<F8BlockKind>},
      {.name = "hopper.expert_matmul_i8_wgmma", .declines = declines<I8Kind>, .run = run<I8Kind>},
      {.name = "hopper.expert_matmul_bf16_wgmma", .declines = declines<BF16Kind>, .run = run<BF16Kind>},
  };
}

}  // namespace octet
