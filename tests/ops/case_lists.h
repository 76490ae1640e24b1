// The cases of every op: all formats that its check() allows, shapes drawn from the case's seed.
#pragma once

#include <functional>
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
std::vector<Case<ArgmaxOp>> cases();
template <>
std::vector<Case<EmbeddingOp>> cases();
template <>
std::vector<Case<GatherRowsOp>> cases();
template <>
std::vector<Case<MatmulOp>> cases();
template <>
std::vector<Case<PagedAttentionOp>> cases();
template <>
std::vector<Case<QuantizeOp>> cases();
template <>
std::vector<Case<RmsNormOp>> cases();
template <>
std::vector<Case<RopeKvOp>> cases();
template <>
std::vector<Case<RopeTableOp>> cases();
template <>
std::vector<Case<SiluAndMulOp>> cases();

// A mixed batch over a paged cache.
struct AttentionShape {
  struct Sequence {
    int64_t num_queries, num_keys;
  };
  std::vector<Sequence> sequences;
  int64_t num_heads = 1, num_kv_heads = 1, head_dim = 16, block_size = 16, sliding_window = 0;
};
struct AttentionFormats {
  DType q = DType::kF32, cache = DType::kF32, out = DType::kF32;
  QuantFormat quantized;  // plain: none is written
};
// Cache slots beyond a sequence's tokens hold NaN, table entries beyond its blocks nonsense.
PagedAttentionOp make_attention(CaseMemory& memory, const AttentionShape& shape, const AttentionFormats& formats);

inline const QuantFormat kOutputFormats[] = {plain_format(DType::kF32), plain_format(DType::kBF16), kF8DynamicToken,
                                             kF8StaticTensor};

}  // namespace octet::ops_test
