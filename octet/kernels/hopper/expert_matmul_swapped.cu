// hopper.expert_matmul_f8_swapped, expert_matmul_f8_block_swapped, expert_matmul_i8_swapped,
// expert_matmul_bf16_swapped: the products of a mixture's experts (octet/ops/expert_matmul.h) of up to 64 rows each in
// the mean, by the kernel of matmul_swapped.cu, whose operands they take.
#include <iterator>

#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/matmul_swapped.cuh"

namespace octet {
namespace {

using namespace swapped;

// From here on the large kernel is faster, sooner where chunks have scales, which this one multiplies slowly.
constexpr int64_t max_mean_rows(bool scales_chunks) { return scales_chunks ? 16 : 40; }

// 128 rows of the weight a tile, for which the tokens are loaded once, where the sums' registers allow. Two CTAs'
// shared memory has room for the scales of many rows.
constexpr SwappedConfig kConfigs[] = {
    {.tokens = 32, .row_groups = 2, .chunks = 1, .stages = 5},
    {.tokens = 64, .row_groups = 2, .chunks = 1, .stages = 4},
    {.tokens = 32, .row_groups = 1, .chunks = 2, .stages = 4},
};

const SwappedConfig& config_of(const ExpertMatmulOp& op) {
  const int row_groups = op.x.format.granularity == Granularity::kGroup ? 1 : 2;
  // An expert with more rows has several tiles, which read its weight from L2.
  const int tokens = most_rows(op) <= 32 || mean_rows(op) <= 16 ? 32 : 64;
  return *std::ranges::find_if(
      kConfigs, [&](const SwappedConfig& c) { return c.tokens == tokens && c.row_groups == row_groups; });
}

// As many CTAs as are there at once; how many tiles there are is not known here.
int64_t num_ctas_of(const Launch& launch) { return 2 * int64_t{launch.gpu->num_sms}; }

template <class Kind>
std::string declines(const ExpertMatmulOp& op, const Launch& launch) {
  if (const int64_t most = max_mean_rows(Kind::kScalesChunks); mean_rows(op) > most)
    return fmt::format("takes at most {} rows of an expert in the mean, not {}", most, mean_rows(op));
  std::string reason = experts_decline<Kind>(op, launch);
  if (reason.empty()) reason = vector_output_declines(first_matrix(op));
  if (!reason.empty()) return reason;
  const int64_t needed = stream_bytes(op, stream_shape(config_of(op)), num_ctas_of(launch));
  if (needed > launch.gpu->max_shared_bytes) {
    return fmt::format("needs {} bytes of shared memory, there are {}", needed, launch.gpu->max_shared_bytes);
  }
  return "";
}

template <class Kind, int kIndex>
__global__ void __launch_bounds__(kThreads, 2)
    expert_matmul_swapped(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x,
                          const StreamArguments a) {
  multiply<Kind, kConfigs[kIndex], true>(weight, x, a);
}

template <class Kind, int kIndex>
void run_config(const ExpertMatmulOp& op, const Launch& launch) {
  constexpr StreamShape kShape = stream_shape(kConfigs[kIndex]);
  const auto num_ctas = static_cast<int>(num_ctas_of(launch));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_ctas)),
                          .block = dim3(kThreads),
                          .shared_bytes = stream_bytes(op, kShape, num_ctas)};
  const StreamArguments arguments = make_stream_arguments(op, kShape, num_ctas, kTrigger);
  allow_shared_bytes(expert_matmul_swapped<Kind, kIndex>, shape.shared_bytes);
  launch_kernel("hopper.expert_matmul_swapped", launch, shape, expert_matmul_swapped<Kind, kIndex>,
                make_chunk_map(all_matrices(op.weight.data), kShape.tile_rows, kShape.chunks),
                make_chunk_map(op.x.data, arguments.x_rows, kShape.chunks), arguments);
}

template <class Kind>
void run(const ExpertMatmulOp& op, const Launch& launch) {
  const auto config = &config_of(op) - kConfigs;
  const auto run_if = [&]<int kIndex>() {
    if constexpr (kConfigs[kIndex].row_groups == (Kind::kScalesChunks ? 1 : 2)) {
      if (config == kIndex) run_config<Kind, kIndex>(op, launch);
    }
  };
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) { (run_if.template operator()<kIndex>(), ...); }
  (std::make_integer_sequence<int, std::size(kConfigs)>());
}

}  // namespace

std::vector<Kernel<ExpertMatmulOp>> hopper_expert_matmul_swapped() {
  return {
      {.name = "hopper.expert_matmul_f8_swapped", .declines = declines<F8Kind>, .run = run<F8Kind>},
      {.name = "hopper.expert_matmul_f8_block_swapped", .declines = declines<F8BlockKind>, .run = run<F8BlockKind>},
      {.name = "hopper.expert_matmul_i8_swapped", .declines = declines<I8Kind>, .run = run<I8Kind>},
      {.name = "hopper.expert_matmul_bf16_swapped", .declines = declines<BF16Kind>, .run = run<BF16Kind>},
  };
}

}  // namespace octet
