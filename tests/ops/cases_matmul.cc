#include <cmath>

#include "tests/ops/case_lists.h"

namespace octet::ops_test {
namespace {

// x and w are about 1, so a sum of K products is about sqrt(K), and an F32 sum's error grows like its terms' root.
Bound matmul_bound(DType out, int64_t k) {
  const Bound f32{.absolute = 1e-6 * std::sqrt(static_cast<double>(k)) + 2e-8 * static_cast<double>(k),
                  .relative = 1e-6};
  return rounded_bound(out, f32);
}

}  // namespace

MatmulOp make_matmul(CaseMemory& m, const MatmulFormats& formats, int64_t t, int64_t n, int64_t k) {
  const auto layout = [&] { return m.random().coin() ? Layout::kStrided : Layout::kContiguous; };
  MatmulOp op{.out = m.output("out", formats.out, Shape{t, n}, matmul_bound(formats.out, k), layout()),
              .x = m.quant_input(formats.x, t, k, layout()),
              .weight = m.quant_weight(formats.weight, n, k),
              .bias = {}};
  if (m.random().coin()) op.bias = m.weight(DType::kF32, Shape{n});
  return op;
}

template <>
std::vector<Case<MatmulOp>> cases() {
  std::vector<Case<MatmulOp>> list;
  for (const QuantFormat& x :
       {plain_format(DType::kF32), plain_format(DType::kBF16), kF8DynamicToken, kF8StaticTensor}) {
    for (const QuantFormat& weight :
         {plain_format(DType::kF32), plain_format(DType::kBF16), plain_format(DType::kF16), kF8Tensor, kF8Channel}) {
      for (const DType out : {DType::kF32, DType::kBF16}) {
        const MatmulFormats formats{x, weight, out};
        for (int repeat = 0; repeat < 3; ++repeat) {
          list.push_back({fmt::format("{} x {} to {} {}", x.to_string(), weight.to_string(), dtype_name(out), repeat),
                          [=](CaseMemory& m) {
                            const int64_t t = m.random().pick<int64_t>({1, 1, 2, 3, 4, 5, 7, 8, 16, 33, 50});
                            const int64_t n = m.random().pick<int64_t>({1, 3, 8, 15, 16, 31, 48, 64, 130});
                            const int64_t k = m.random().pick<int64_t>({1, 5, 16, 31, 32, 63, 64, 96, 200, 576});
                            return make_matmul(m, formats, t, n, k);
                          }});
        }
        list.push_back(
            {fmt::format("{} x {} to {} of one token and a long K", x.to_string(), weight.to_string(), dtype_name(out)),
             [=](CaseMemory& m) { return make_matmul(m, formats, 1, 96, 1536); }});
      }
    }
  }
  return list;
}

}  // namespace octet::ops_test
