// hopper.matmul_f8_swapped, matmul_f8_block_swapped, matmul_i8_swapped, matmul_bf16_swapped: matmuls of up to 128
// tokens, whose time is still that of reading the weight. Operands as the ring's (matmul_ring.cu); out f32 or bf16.
// Rows of x and of the weight must be a multiple of 16 bytes, channels of 8, rows of out aligned to 16 bytes.
//
//   - The warpgroup instruction's operands are swapped: its 64 rows are rows of the weight, its columns the 32, 64 or
//     128 tokens, so that few tokens waste nothing.
//   - Weights stream through shared memory (weight_stream.cuh). With many channels a CTA's two warpgroups take 64 rows
//     each and share the tokens' stage. With few they take the same 64 rows, of which one sums even, one odd chunks;
//     they exchange halves of their sums through shared memory and write half of the tokens each.
//   - With so few channels that half of the SMs would idle, two CTAs of a cluster take half of a long K each, and
//     exchange halves of what they have then as well.
//   - E4M3 sums are taken over a chunk at a time (wgmma.cuh). The order over K depends on the weight's shape alone, so
//     a token's bits do not depend on the others.
#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/matmul_swapped.cuh"

namespace octet {
namespace {

using namespace swapped;

constexpr int kMaxTokens = 128;
constexpr int64_t kManyChannels = 16384;  // from here on warpgroups take rows each
constexpr int64_t kMinSplitChunks = 64;   // of K; with 32 the exchange cost what it gained

// Up to 64 tokens two CTAs fit into an SM.
constexpr SwappedConfig kConfigs[] = {
    {.tokens = 32, .row_groups = 1, .chunks = 2, .stages = 4},   //
    {.tokens = 32, .row_groups = 2, .chunks = 1, .stages = 5},   //
    {.tokens = 64, .row_groups = 1, .chunks = 2, .stages = 3},   //
    {.tokens = 64, .row_groups = 2, .chunks = 1, .stages = 4},   //
    {.tokens = 128, .row_groups = 1, .chunks = 2, .stages = 4},  //
    {.tokens = 128, .row_groups = 2, .chunks = 1, .stages = 6},  //
    {.tokens = 32, .row_groups = 1, .chunks = 2, .stages = 4, .splits = 2},
    {.tokens = 64, .row_groups = 1, .chunks = 2, .stages = 3, .splits = 2},
    {.tokens = 128, .row_groups = 1, .chunks = 2, .stages = 4, .splits = 2},
};

static_assert(std::ranges::all_of(kConfigs, [](const SwappedConfig& c) {
  return !shares_sm(c) || stream_shape(c).row_scales_offset() <= kCoResidentBytes - 512;
}));

template <class Kind, int kIndex>
__global__ void __launch_bounds__(kThreads, shares_sm(kConfigs[kIndex]) ? 2 : 1)
    matmul_swapped(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x,
                   const StreamArguments a) {
  multiply<Kind, kConfigs[kIndex], false>(weight, x, a);
}

// ---- host ----

struct Plan {
  int config;
  int num_ctas;  // or clusters
};

// Beyond so many tokens the large kernel is faster where this one would leave SMs idle: an eighth of them with E4M3, a
// third with BF16, of which they multiply half as much in the time that a weight takes.
constexpr int64_t kMaxTokensIdling = 64;
bool leaves_sms_idle(const Plan& plan, DType dtype, const Launch& launch) {
  const int64_t used = int64_t{plan.num_ctas} * kConfigs[plan.config].splits;
  const int64_t num_sms = launch.gpu->num_sms;
  return dtype == DType::kBF16 ? 3 * used < 2 * num_sms : 8 * used < 7 * num_sms;
}

// As few rounds of tiles as the SMs' places allow, and equal ones. How K is split must not depend on the tokens.
Plan plan_of(const MatmulOp& op, const Launch& launch) {
  const bool scales_chunks = op.x.format.granularity == Granularity::kGroup;
  const int row_groups = op.out.dim(1) >= kManyChannels && !scales_chunks ? 2 : 1;
  const int64_t num_tiles = ceil_divide(op.out.dim(1), kGroupRows * row_groups);
  const bool is_split = 2 * num_tiles <= launch.gpu->num_sms && num_chunks(op) >= kMinSplitChunks;
  for (size_t i = 0; i < std::size(kConfigs); ++i) {
    const SwappedConfig& c = kConfigs[i];
    if (c.tokens < op.out.dim(0) || c.row_groups != row_groups || (c.splits > 1) != is_split) continue;
    const int64_t places = int64_t{launch.gpu->num_sms} * (shares_sm(c) ? 2 : 1);
    return {static_cast<int>(i), static_cast<int>(ceil_divide(num_tiles, ceil_divide(num_tiles, places)))};
  }
  fail(ErrorCode::kInternal, "no configuration for {} tokens", op.out.dim(0));
}

template <class Kind>
std::string declines(const MatmulOp& op, const Launch& launch) {
  constexpr int kMost = Kind::kScalesChunks ? kMaxScaledTokens : kMaxTokens;
  if (op.out.dim(0) > kMost) return fmt::format("takes at most {} tokens, not {}", kMost, op.out.dim(0));
  std::string reason = operands_decline<Kind>(op, launch);
  if (reason.empty()) reason = vector_output_declines(op);
  if (!reason.empty()) return reason;
  const Plan plan = plan_of(op, launch);
  if (op.out.dim(0) > kMaxTokensIdling && leaves_sms_idle(plan, op.x.data.dtype, launch)) {
    return fmt::format("takes at most {} tokens with {} channels, not {}", kMaxTokensIdling, op.out.dim(1),
                       op.out.dim(0));
  }
  const int64_t needed = stream_bytes(op, stream_shape(kConfigs[plan.config]), plan.num_ctas);
  if (needed > launch.gpu->max_shared_bytes) {
    return fmt::format("needs {} bytes of shared memory, there are {}", needed, launch.gpu->max_shared_bytes);
  }
  return "";
}

template <class Kind, int kIndex>
void run_config(const MatmulOp& op, const Launch& launch, const Plan& plan) {
  constexpr StreamShape kShape = stream_shape(kConfigs[kIndex]);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(plan.num_ctas * kShape.splits)),
                          .block = dim3(kThreads),
                          .shared_bytes = stream_bytes(op, kShape, plan.num_ctas),
                          .cluster = kShape.splits};
  const StreamArguments arguments = make_stream_arguments(op, kShape, plan.num_ctas, kTrigger);
  allow_shared_bytes(matmul_swapped<Kind, kIndex>, shape.shared_bytes);
  launch_kernel("hopper.matmul_swapped", launch, shape, matmul_swapped<Kind, kIndex>,
                make_chunk_map(op.weight.data, kShape.tile_rows, kShape.chunks),
                make_chunk_map(op.x.data, arguments.x_rows, kShape.chunks), arguments);
}

template <class Kind>
void run(const MatmulOp& op, const Launch& launch) {
  const Plan plan = plan_of(op, launch);
  const auto run_if = [&]<int kIndex>() {
    if constexpr (fits(kConfigs[kIndex], Kind::kScalesChunks)) {
      if (plan.config == kIndex) run_config<Kind, kIndex>(op, launch, plan);
    }
  };
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) { (run_if.template operator()<kIndex>(), ...); }
  (std::make_integer_sequence<int, std::size(kConfigs)>());
}
}  // namespace

Kernel<MatmulOp> hopper_matmul_f8_swapped() {
  return {.name = "hopper.matmul_f8_swapped", .declines = declines<F8Kind>, .run = run<F8Kind>};
}

Kernel<MatmulOp> hopper_matmul_f8_block_swapped() {
  return {.name = "hopper.matmul_f8_block_swapped", .declines = declines<F8BlockKind>, .run = run<F8BlockKind>};
}

Kernel<MatmulOp> hopper_matmul_i8_swapped() {
  return {.name = "hopper.matmul_i8_swapped", .declines = declines<I8Kind>, .run = run<I8Kind>};
}

Kernel<MatmulOp> hopper_matmul_bf16_swapped() {
  return {.name = "hopper.matmul_bf16_swapped", .declines = declines<BF16Kind>, .run = run<BF16Kind>};
}

}  // namespace octet
