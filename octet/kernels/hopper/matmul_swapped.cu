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
#include "octet/kernels/hopper/cluster.cuh"
#include "octet/kernels/hopper/kernels.h"
#include "octet/kernels/hopper/weight_stream.cuh"
#include "octet/kernels/hopper/wgmma.cuh"

namespace octet {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2 * kWarpgroup;
constexpr int kThreads = kConsumers + 32;
constexpr int kGroupRows = 64;
constexpr int kMaxTokens = 128;
constexpr int kTrigger = 4;
constexpr int64_t kManyChannels = 16384;  // from here on warpgroups take rows each
constexpr int64_t kMinSplitChunks = 64;   // of K; with 32 the exchange cost what it gained

struct SwappedConfig {
  int tokens;
  int row_groups;  // 2: 64 rows for each warpgroup; 1: half of K for each
  int chunks;
  int stages;
  int splits = 1;  // of K over a cluster's CTAs, which then have one tile
};
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

// Whether a thread's registers hold what it needs.
constexpr bool fits(const SwappedConfig& c, bool scales_chunks) { return !scales_chunks || c.row_groups == 1; }
constexpr bool shares_sm(const SwappedConfig& c) { return c.tokens <= 64; }
constexpr StreamShape stream_shape(const SwappedConfig& c) {
  return {.tile_rows = kGroupRows * c.row_groups,
          .tokens = c.tokens,
          .chunks = c.chunks,
          .stages = c.stages,
          .extra_bytes = c.row_groups == 1 ? kGroupRows * c.tokens * static_cast<int>(sizeof(float)) : 0,
          .splits = c.splits,
          .row_unit = 8};
}
static_assert(std::ranges::all_of(kConfigs, [](const SwappedConfig& c) {
  return !shares_sm(c) || stream_shape(c).row_scales_offset() <= kCoResidentBytes - 512;
}));

template <class Sum>
using Quad = std::conditional_t<std::is_same_v<Sum, float>, float4, int4>;

__device__ inline void consumer_barrier() { asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory"); }

// The scales of a chunk that a thread's sums are multiplied by: rows row and row + 8, tokens 8j + 2t and 8j + 2t + 1.
// Lane (g, t) loads those of j = g, g + 8; the others have them from there.
template <SwappedConfig kConfig>
struct WarpChunkScales {
  static constexpr int kOctets = kConfig.tokens / 8;
  static constexpr int kLoads = (kOctets + 7) / 8;
  float rows[2];
  float tokens[kLoads][2];

  __device__ void load(const MatmulOutput& a, int row, int chunk) {
    const ChunkScales& scales = a.chunks;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    chunk = scales.inside(chunk);
    for (int i = 0; i < 2; ++i) {
      rows[i] = scales.weight[scales.of_channel(row + 8 * i, a.num_channels) + chunk];
      for (int j = 0; j < kLoads; ++j) {
        tokens[j][i] = scales.x[scales.of_token(j * 64 + 2 * lane + i, a.num_tokens) + chunk];
      }
    }
  }
  // Adds the chunk's sums of kCount / 2 tokens from the octet `first` on.
  template <int kCount>
  __device__ void add(float* sums, const float (&part)[kCount], int first) const {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) {
      const int octet = first + j;
      for (int i = 0; i < 2; ++i) {
        const float token = __shfl_sync(0xffffffffu, tokens[octet / 8][i], octet % 8 * 4 + t);
        for (int k = i; k < 4; k += 2) {
          sums[4 * octet + k] = fmaf(part[4 * j + k], rows[k / 2] * token, sums[4 * octet + k]);
        }
      }
    }
  }
};

// The sums of a warpgroup over a tile: [rows g, g + 8] x [tokens 8j + 2t, 8j + 2t + 1] in sums[4j ..]. `row`: the
// thread's first, of the matrix.
template <class Kind, SwappedConfig kConfig>
__device__ void multiply_tile(const StreamArguments& a, typename Kind::Sum (&sums)[kConfig.tokens / 2],
                              const WeightStream<stream_shape(kConfig)>& stream,
                              StreamReader<stream_shape(kConfig)>& reader, int warpgroup, int row) {
  using Element = typename Kind::Element;
  constexpr StreamShape kShape = stream_shape(kConfig);
  for (int i = 0; i < kConfig.tokens / 2; ++i) sums[i] = 0;
  WarpChunkScales<kConfig> scales;
  const int chunk = kConfig.row_groups == 1 ? warpgroup : 0;
  const auto chunk_at = [&](int step) { return (stream.first_step + step) * kShape.chunks + chunk; };
  if constexpr (Kind::kScalesChunks) scales.load(a.output, row, chunk_at(0));
#pragma unroll 1
  for (int step = 0; step < stream.steps; ++step) {
    const int group = kConfig.row_groups == 1 ? 0 : warpgroup;
    const uint32_t stage = reader.wait(stream);
    const uint64_t rows = wgmma_operand(stage + (chunk * kShape.tile_rows + group * kGroupRows) * kChunkBytes);
    // Rows beyond the stage's are anything: columns of the result that nobody wants.
    const uint64_t tokens = wgmma_operand(stage + kShape.weight_bytes() + chunk * a.x_rows * kChunkBytes);
    if constexpr (Kind::kScalesChunks) {
      // Of the tokens, for registers; one part is multiplied while the one before it is added.
      constexpr int kParts = kConfig.tokens == 32 ? 1 : kConfig.tokens / 16;
      constexpr int kSums = kConfig.tokens / 2 / kParts;
      float part[2][kSums];
      const auto start = [&](int i) {
        wgmma_chunk<Element>(part[i % 2], rows, tokens + i * (2 * kSums * kChunkBytes / 16), 0);
      };
      start(0);
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
        if (i + 1 < kParts) {
          start(i + 1);
          wgmma_wait<1>();
        } else {
          wgmma_wait<0>();
          if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
        }
        scales.add(sums, part[i % 2], i * kSums / 4);
      }
      scales.load(a.output, row, chunk_at(step + 1));  // they come while the next chunk is awaited
    } else if constexpr (kAddsChunks<Element>) {
      float part[kConfig.tokens / 2];
      wgmma_chunk<Element>(part, rows, tokens, 0);
      wgmma_wait<0>();
      if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
#pragma unroll
      for (int i = 0; i < kConfig.tokens / 2; ++i) sums[i] += part[i];
    } else {
      wgmma_chunk<Element>(sums, rows, tokens, 1);
      wgmma_wait<0>();
      if (threadIdx.x % kWarpgroup == 0) reader.release(stream);
    }
    reader.advance();
  }
}

// Rows row and row + 8 (from the CTA's first on) x kCount tokens from first_token on.
template <StreamShape kShape, int kCount, class Sum>
__device__ void write_sums(const StreamArguments& a, const WeightStream<kShape>& stream, const Sum* sums, int row,
                           int first_token) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int t = lane % 4;
  const bool odd = (lane / 4 & 1) != 0;
#pragma unroll
  for (int i = 0; i < kCount / 8 * 2; ++i) {  // 8 tokens, then which row of the two
    const int token = first_token + i / 2 * 8 + 2 * t;
    const int place = row + i % 2 * 8;
    const int channel = stream.row_of(0) + place;
    const float first = stream.finish(a, static_cast<float>(sums[2 * i]), place, token);
    const float second = stream.finish(a, static_cast<float>(sums[2 * i + 1]), place, token + 1);
    if (a.output.out_f32) {
      float* out = static_cast<float*>(a.output.out) + token * a.output.out_stride + channel;
      if (channel < a.output.num_channels && token < a.output.num_tokens) *out = first;
      if (channel < a.output.num_channels && token + 1 < a.output.num_tokens) out[a.output.out_stride] = second;
      continue;
    }
    // Neighbours in rows exchange, so that each has two channels of one token.
    const float got = __shfl_xor_sync(0xffffffffu, odd ? first : second, 4);
    const uint32_t packed = odd ? pack_bf16({got, second}) : pack_bf16({first, got});
    const int my_token = odd ? token + 1 : token;
    const int my_channel = odd ? channel - 1 : channel;
    if (my_channel < a.output.num_channels && my_token < a.output.num_tokens) {
      *reinterpret_cast<uint32_t*>(static_cast<BF16*>(a.output.out) + my_token * a.output.out_stride + my_channel) =
          packed;
    }
  }
}

// Warpgroup 0's sums over even chunks and warpgroup 1's over odd ones: the first keeps the first half of the tokens and
// gets the other's sums of it, and the other way round.
template <SwappedConfig kConfig, class Sum>
__device__ void exchange_sums(Sum (&sums)[kConfig.tokens / 2], std::byte* memory, int warpgroup) {
  constexpr int kQuads = kConfig.tokens / 16;  // of a half
  auto* given = reinterpret_cast<Quad<Sum>*>(memory);
  const auto place = [&](int half, int i) -> Quad<Sum>& {
    return given[(half * kQuads + i) * kWarpgroup + threadIdx.x % kWarpgroup];
  };
  const auto quad = [&](int i) { return Quad<Sum>{sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]}; };
  consumer_barrier();  // the last tile's have been read
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    if (warpgroup == 0) {
      place(1, i) = quad(kQuads + i);
    } else {
      place(0, i) = quad(i);
    }
  }
  consumer_barrier();
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const Quad<Sum> other = place(warpgroup, i);
    const auto add = [&](int first) {  // a sum of two has no order
      sums[first] += other.x;
      sums[first + 1] += other.y;
      sums[first + 2] += other.z;
      sums[first + 3] += other.w;
    };
    if (warpgroup == 0) {
      add(4 * i);
    } else {
      add(4 * (kQuads + i));
    }
  }
}

// The CTA's sums of half of the tokens and the other CTA's: quarter `rank` of all tokens, of the whole K. The memory is
// that of exchange_sums.
template <SwappedConfig kConfig, class Sum>
__device__ void exchange_in_cluster(Sum (&quarter)[kConfig.tokens / 8], const Sum* half, std::byte* memory,
                                    int warpgroup, int rank) {
  constexpr int kQuads = kConfig.tokens / 32;
  Quad<Sum>* given = reinterpret_cast<Quad<Sum>*>(memory) + warpgroup * kQuads * kWarpgroup + threadIdx.x % kWarpgroup;
  cluster_barrier();  // both CTAs have read what they exchanged within themselves
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const Sum* keep = half + 4 * i;
    const Sum* give = half + 4 * (kQuads + i);
    Quad<Sum> values;
    if (rank == 0) {
      values = {give[0], give[1], give[2], give[3]};
      for (int j = 0; j < 4; ++j) quarter[4 * i + j] = keep[j];
    } else {
      values = {keep[0], keep[1], keep[2], keep[3]};
      for (int j = 0; j < 4; ++j) quarter[4 * i + j] = give[j];
    }
    store_at(shared_address(given + i * kWarpgroup), values, 1 - rank);
  }
  cluster_barrier();
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const Quad<Sum> other = given[i * kWarpgroup];  // a sum of two has no order
    quarter[4 * i] += other.x;
    quarter[4 * i + 1] += other.y;
    quarter[4 * i + 2] += other.z;
    quarter[4 * i + 3] += other.w;
  }
}

template <SwappedConfig kConfig, class Sum>
__device__ void write_shared_tile(const StreamArguments& a, const WeightStream<stream_shape(kConfig)>& stream,
                                  const Sum* half, int row, int warpgroup) {
  constexpr StreamShape kShape = stream_shape(kConfig);
  const int first_token = warpgroup * kConfig.tokens / 2;
  if constexpr (kConfig.splits == 1) {
    write_sums<kShape, kConfig.tokens / 2>(a, stream, half, row, first_token);
  } else {
    Sum quarter[kConfig.tokens / 8];
    exchange_in_cluster<kConfig>(quarter, half, stream.memory + kShape.extra_offset(), warpgroup, stream.rank);
    write_sums<kShape, kConfig.tokens / 4>(a, stream, quarter, row, first_token + stream.rank * kConfig.tokens / 4);
  }
}

template <class Kind, SwappedConfig kConfig>
__device__ void consume(const StreamArguments& a, const WeightStream<stream_shape(kConfig)>& stream) {
  constexpr StreamShape kShape = stream_shape(kConfig);
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  const int lane_row = static_cast<int>(threadIdx.x) % kWarpgroup / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  stream.load_scales(a, kConsumers);
  consumer_barrier();
  StreamReader<kShape> reader;
  for (int tile = 0; tile < stream.num_tiles; ++tile) {
    const int row = tile * kShape.tile_rows + lane_row + (kConfig.row_groups == 2 ? warpgroup * kGroupRows : 0);
    typename Kind::Sum sums[kConfig.tokens / 2];
    multiply_tile<Kind, kConfig>(a, sums, stream, reader, warpgroup, stream.row_of(0) + row);
    if constexpr (kConfig.row_groups == 2) {
      write_sums<kShape, kConfig.tokens>(a, stream, sums, row, 0);
    } else {
      exchange_sums<kConfig>(sums, stream.memory + kShape.extra_offset(), warpgroup);
      if (warpgroup == 0) {
        write_shared_tile<kConfig>(a, stream, sums, row, 0);
      } else {
        write_shared_tile<kConfig>(a, stream, sums + kConfig.tokens / 4, row, 1);
      }
    }
  }
}

template <class Kind, int kIndex>
__global__ void __launch_bounds__(kThreads, shares_sm(kConfigs[kIndex]) ? 2 : 1)
    matmul_swapped(const __grid_constant__ ChunkMap weight, const __grid_constant__ ChunkMap x,
                   const StreamArguments a) {
  constexpr SwappedConfig kConfig = kConfigs[kIndex];
  extern __shared__ __align__(kSwizzleAlignment) std::byte memory[];
  const WeightStream<stream_shape(kConfig)> stream(memory, a);
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == kConsumers) {
    stream.init_barriers(2);
    prefetch_map(weight.map);
    prefetch_map(x.map);
  }
  __syncthreads();
  if (thread < kConsumers) {
    consume<Kind, kConfig>(a, stream);
  } else {
    if (thread == kConsumers) stream.produce(a, weight, x);
    __syncwarp();
    if constexpr (kConfig.splits > 1) {  // those of exchange_in_cluster
      cluster_barrier();
      cluster_barrier();
    }
  }
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
  if (op.out.dim(0) > kMaxTokens) return fmt::format("takes at most {} tokens, not {}", kMaxTokens, op.out.dim(0));
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
