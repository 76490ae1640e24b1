#include <cmath>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
// x and w are about 1, with scales up to 1.5 each, so a sum of K products is about 2 sqrt(K), and rounding it K times
// adds up to some 2^-24 K in the worst of many sums. Tensor cores cut bits off where they add: those of BF16 after
// F32's, Hopper's FP8 unit after 14.
Bound matmul_bound(const MatmulFormats& formats, int64_t k, bool on_gpu) {
  const double root = std::sqrt(static_cast<double>(k));
  Bound f32{.absolute = 1e-6 * root + 5e-8 * static_cast<double>(k), .relative = 1e-6};
  if (on_gpu) f32 = {.absolute = 1e-5 * root, .relative = 2e-5};
  if (on_gpu && formats.x.dtype == DType::kF8E4M3 && formats.weight.dtype == DType::kF8E4M3)
    f32.absolute += 4e-3 * root;
  return rounded_bound(formats.out, f32);
}

MatmulOp make_matmul(CaseMemory& m, const MatmulFormats& formats, int64_t t, int64_t n, int64_t k) {
  const auto layout = [&] { return m.random().coin() ? Layout::kStrided : Layout::kContiguous; };
  MatmulOp op{.out = m.output("out", formats.out, Shape{t, n}, matmul_bound(formats, k, m.on_gpu()), layout()),
              .x = m.quant_input(formats.x, t, k, layout()),
              .weight = m.quant_weight(formats.weight, n, k),
              .bias = {}};
  if (m.random().coin()) op.bias = m.weight(DType::kF32, Shape{n});
  return op;
}

namespace {

constexpr QuantFormat f8_group(int32_t columns) {
  return {.dtype = DType::kF8E4M3, .granularity = Granularity::kGroup, .group_cols = columns};
}
constexpr QuantFormat kI8Tensor{.dtype = DType::kI8, .granularity = Granularity::kTensor};
// Blocks that are not squares of 128.
constexpr QuantFormat kF8FlatBlock{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kBlock, .group_rows = 24, .group_cols = 64};
constexpr QuantFormat kF8OddBlock{
    .dtype = DType::kF8E4M3, .granularity = Granularity::kBlock, .group_rows = 5, .group_cols = 40};

}  // namespace

std::vector<std::pair<QuantFormat, QuantFormat>> matmul_formats() {
  const QuantFormat f32 = plain_format(DType::kF32), bf16 = plain_format(DType::kBF16);
  std::vector<std::pair<QuantFormat, QuantFormat>> list;
  for (const QuantFormat& x : {f32, bf16, kF8DynamicToken, kF8StaticTensor}) {
    for (const QuantFormat& weight : {f32, bf16, plain_format(DType::kF16), kF8Tensor, kF8Channel})
      list.push_back({x, weight});
  }
  for (const QuantFormat& x : {f32, bf16, kF8DynamicGroup, kF8DynamicToken}) {
    for (const QuantFormat& weight : {kF8Block, f8_group(128), kF8FlatBlock}) list.push_back({x, weight});
  }
  list.push_back({kF8DynamicGroup, kF8Channel});
  list.push_back({kF8SmallGroup, f8_group(32)});
  list.push_back({kF8DynamicGroup, kF8OddBlock});
  for (const QuantFormat& x : {kI8DynamicToken, kI8StaticTensor, kI8AsymmetricToken, kI8AsymmetricTensor, f32, bf16}) {
    for (const QuantFormat& weight : {kI8Channel, kI8Tensor}) list.push_back({x, weight});
  }
  return list;
}

template <>
std::vector<Case<MatmulOp>> cases() {
  std::vector<Case<MatmulOp>> list;
  for (const auto& [x, weight] : matmul_formats()) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      const MatmulFormats formats{x, weight, out};
      const std::string name = fmt::format("{} x {} to {}", x.to_string(), weight.to_string(), dtype_name(out));
      for (int repeat = 0; repeat < 3; ++repeat) {
        list.push_back({fmt::format("{} {}", name, repeat), [=](CaseMemory& m) {
                          const int64_t t = m.random().pick<int64_t>({1, 1, 2, 3, 4, 5, 7, 8, 16, 33, 50});
                          const int64_t n = m.random().pick<int64_t>({1, 3, 8, 15, 16, 31, 48, 64, 130});
                          const int64_t k = m.random().pick<int64_t>({1, 5, 16, 31, 32, 63, 64, 96, 200, 576});
                          return make_matmul(m, formats, t, n, k);
                        }});
      }
      list.push_back({fmt::format("{} of one token and a long K", name),
                      [=](CaseMemory& m) { return make_matmul(m, formats, 1, 96, 1536); }});
      list.push_back({fmt::format("{} of many tokens and a long, odd K", name),
                      [=](CaseMemory& m) { return make_matmul(m, formats, 21, 27, 2053); }});
    }
  }
  return list;
}

}  // namespace octet::ops_test
