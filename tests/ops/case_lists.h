// The cases of every op: all formats that its check() allows, shapes drawn from the case's seed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "octet/ops/ops.h"
#include "tests/ops/case_memory.h"

namespace octet::ops_test {

template <class Op>
struct Case {
  std::string name;
  std::function<Op(CaseMemory&)> make;  // the op on arguments that live in the memory
};

template <class Op>
std::vector<Case<Op>> cases();
template <>
std::vector<Case<CombineExpertsOp>> cases();
template <>
std::vector<Case<EmbeddingOp>> cases();
template <>
std::vector<Case<ExpertMatmulOp>> cases();
template <>
std::vector<Case<ExpertPermuteOp>> cases();
template <>
std::vector<Case<ExpertSiluAndMulOp>> cases();
template <>
std::vector<Case<GatherRowsOp>> cases();
template <>
std::vector<Case<MoveIntsOp>> cases();
template <>
std::vector<Case<HeadMatmulOp>> cases();
template <>
std::vector<Case<LatentKvOp>> cases();
template <>
std::vector<Case<MatmulOp>> cases();
template <>
std::vector<Case<PagedAttentionOp>> cases();
template <>
std::vector<Case<QuantizeOp>> cases();
template <>
std::vector<Case<RmsNormOp>> cases();
template <>
std::vector<Case<RopeAttentionOp>> cases();
template <>
std::vector<Case<RopeKvOp>> cases();
template <>
std::vector<Case<RopeTableOp>> cases();
template <>
std::vector<Case<RouteExpertsOp>> cases();
template <>
std::vector<Case<SampleOp>> cases();
template <>
std::vector<Case<SiluAndMulOp>> cases();

// Shapes of real models, too slow for CPU kernels' every run: for GPUs.
template <class Op>
std::vector<Case<Op>> large_cases();
template <>
std::vector<Case<CombineExpertsOp>> large_cases();
template <>
std::vector<Case<EmbeddingOp>> large_cases();
template <>
std::vector<Case<ExpertMatmulOp>> large_cases();
template <>
std::vector<Case<ExpertPermuteOp>> large_cases();
template <>
std::vector<Case<ExpertSiluAndMulOp>> large_cases();
template <>
std::vector<Case<GatherRowsOp>> large_cases();
template <>
std::vector<Case<MoveIntsOp>> large_cases();
template <>
std::vector<Case<HeadMatmulOp>> large_cases();
template <>
std::vector<Case<LatentKvOp>> large_cases();
template <>
std::vector<Case<MatmulOp>> large_cases();
template <>
std::vector<Case<PagedAttentionOp>> large_cases();
template <>
std::vector<Case<QuantizeOp>> large_cases();
template <>
std::vector<Case<RmsNormOp>> large_cases();
template <>
std::vector<Case<RopeAttentionOp>> large_cases();
template <>
std::vector<Case<RopeKvOp>> large_cases();
template <>
std::vector<Case<RopeTableOp>> large_cases();
template <>
std::vector<Case<RouteExpertsOp>> large_cases();
template <>
std::vector<Case<SampleOp>> large_cases();
template <>
std::vector<Case<SiluAndMulOp>> large_cases();

struct MatmulFormats {
  QuantFormat x, weight;
  DType out;
};
// Those of x and weight that a matmul takes.
std::vector<std::pair<QuantFormat, QuantFormat>> matmul_formats();
// Of products whose operands are about 1, scales included.
Bound matmul_bound(const MatmulFormats& formats, int64_t k, bool on_gpu);
MatmulOp make_matmul(CaseMemory& memory, const MatmulFormats& formats, int64_t tokens, int64_t n, int64_t k);

// What the ops that work row by row are made of: [rows, columns].
struct Matrix {
  int64_t rows, columns;
};
EmbeddingOp make_embedding(CaseMemory& memory, DType out, DType table, Matrix size, int64_t first_id);
GatherRowsOp make_gather_rows(CaseMemory& memory, DType dtype, Matrix x, int64_t num_rows);
// Of up to `most` elements each: a copy, a scatter, and a gather or both of what the copy brought.
MoveIntsOp make_move_ints(CaseMemory& memory, int64_t most);
QuantizeOp make_quantize(CaseMemory& memory, DType x, const QuantFormat& out, Matrix size, const Fill& fill);
RmsNormOp make_rms_norm(CaseMemory& memory, DType residual, const QuantFormat& out, Matrix size, bool adds);
SiluAndMulOp make_silu_and_mul(CaseMemory& memory, DType x, const QuantFormat& out, Matrix size, float magnitude);
// Rows drawn in every way that a request may ask for, with and without each limit, some greedily.
SampleOp make_sample(CaseMemory& memory, Matrix size, const Fill& fill);
RopeTableOp make_rope_table(CaseMemory& memory, int64_t tokens, int64_t half, float ntk_factor);
Layout draw_layout(Random& random);
// Values of a row that a quantiser must get right: zeros, NaN, infinities, the subnormal, the largest.
float special_values(Random& random);

enum class RopeForm { kPlain, kPartialRotation, kQueryAndKeyNorm, kInPlace, kScalePerHead };
struct Heads {
  int64_t num_heads, num_kv_heads, head_dim;
};
RopeKvOp make_rope_kv(CaseMemory& memory, DType qkv, DType cache, const Heads& heads, int64_t tokens, RopeForm form);

// A mixed batch over a paged cache.
struct AttentionShape {
  struct Sequence {
    int64_t num_queries, num_keys;
  };
  std::vector<Sequence> sequences;
  int64_t num_heads = 1, num_kv_heads = 1, head_dim = 16, block_size = 16, sliding_window = 0;
  int64_t value_dim = 0;  // of values that lie in the keys' cache; 0: they have their own, of head_dim
};
struct AttentionFormats {
  DType q = DType::kF32, cache = DType::kF32, out = DType::kF32;
  QuantFormat quantized;                                                 // plain: none is written
  enum class Scales : uint8_t { kOne, kPerHead } scales = Scales::kOne;  // of the cache
};
// Cache slots beyond a sequence's tokens hold NaN, table entries beyond its blocks nonsense.
PagedAttentionOp make_attention(CaseMemory& memory, const AttentionShape& shape, const AttentionFormats& formats);
// A new token's slot in the cache holds NaN until it is written.
RopeAttentionOp make_rope_attention(CaseMemory& memory, const AttentionShape& shape, const AttentionFormats& formats,
                                    RopeForm form);

// Scales per token that the caller gives: quantize alone takes them.
inline constexpr QuantFormat kF8GivenToken{.dtype = DType::kF8E4M3, .granularity = Granularity::kToken};
inline constexpr DType kActivations[] = {DType::kF32, DType::kBF16};
inline constexpr DType kCaches[] = {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};
inline constexpr QuantFormat kI8GivenToken{.dtype = DType::kI8, .granularity = Granularity::kToken};
inline constexpr QuantFormat kF8PowerOfTwoGroup{.dtype = DType::kF8E4M3,
                                                .granularity = Granularity::kGroup,
                                                .dynamic = true,
                                                .group_cols = 128,
                                                .power_of_two = true};
inline constexpr QuantFormat kF8SmallGroup{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kGroup, .dynamic = true, .group_cols = 32};
inline constexpr QuantFormat kF8CappedToken{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kToken, .dynamic = true, .amax_cap = 1.5f};
inline constexpr QuantFormat kI8AsymmetricToken{
    .dtype = DType::kI8, .granularity = Granularity::kToken, .dynamic = true, .zero_point = true};
inline constexpr QuantFormat kI8AsymmetricTensor{
    .dtype = DType::kI8, .granularity = Granularity::kTensor, .zero_point = true};
// What an op's output may be, and those of it that are quantised.
inline constexpr QuantFormat kOutputFormats[] = {plain_format(DType::kF32),
                                                 plain_format(DType::kBF16),
                                                 kF8DynamicToken,
                                                 kF8StaticTensor,
                                                 kF8DynamicGroup,
                                                 kF8PowerOfTwoGroup,
                                                 kF8SmallGroup,
                                                 kF8CappedToken,
                                                 kI8DynamicToken,
                                                 kI8StaticTensor,
                                                 kI8AsymmetricToken,
                                                 kI8AsymmetricTensor};
inline constexpr std::span<const QuantFormat> kQuantizedFormats = std::span(kOutputFormats).subspan(2);

}  // namespace octet::ops_test
