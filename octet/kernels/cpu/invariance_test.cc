// A row's bits depend on its own input only: not on how many rows run with it, nor on the number of threads. Every
// comparison here is bit for bit between two ways of asking the fast kernels for the same rows; that the values are
// right is the parity tests' business.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "octet/kernels/backends.h"

namespace octet {
namespace {

class Team {
 public:
  explicit Team(int num_threads) : threads_(num_threads), scratch_(num_threads) {}
  template <class Op>
  void run(const Op& op) {
    Backend(kernel_table(Device{}),
            Launch{.stream = {}, .threads = &threads_, .scratch = &scratch_, .features = cpu_features()},
            DType::kF32)(op);
  }

 private:
  ThreadPool threads_;
  ThreadScratch scratch_;
};

class Invariance : public ::testing::Test {
 protected:
  Tensor make(DType dtype, Shape shape) {
    buffers_.emplace_back(Device{}, std::max<int64_t>(shape.num_elements() * dtype_bytes(dtype), 1), "test");
    std::memset(buffers_.back().data(), 0, static_cast<size_t>(buffers_.back().num_bytes()));
    return Tensor(buffers_.back().data(), dtype, shape);
  }
  Tensor random(DType dtype, Shape shape) {
    Tensor tensor = make(dtype, shape);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      const float value = normal(generator_);
      if (dtype == DType::kF32) tensor.data<float>()[i] = value;
      if (dtype == DType::kBF16) tensor.data<BF16>()[i] = to_bf16(value);
      if (dtype == DType::kF8E4M3) tensor.data<F8E4M3>()[i] = to_f8_e4m3(value);
    }
    return tensor;
  }
  static void expect_same_bits(const Tensor& a, const Tensor& b, std::string_view what) {
    EXPECT_EQ(std::memcmp(a.bytes, b.bytes, static_cast<size_t>(a.num_bytes())), 0) << what;
  }
  Tensor ints(std::vector<int32_t> values, Shape shape) {
    Tensor tensor = make(DType::kI32, shape);
    std::copy(values.begin(), values.end(), tensor.data<int32_t>());
    return tensor;
  }

  std::deque<Buffer> buffers_;
  std::mt19937 generator_{20240229};
  Team one_{1};
  Team three_{3};
};

TEST_F(Invariance, MatmulRowsStandAlone) {
  constexpr int64_t kTokens = 75, kRows = 61;
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t cols : {37, 576, 1600}) {  // tails; one chunk; more than two
      const bool f8 = dtype == DType::kF8E4M3;
      const Tensor w = random(dtype, {kRows, cols}), w_scale = random(DType::kF32, {kRows});
      const Tensor x = random(f8 ? dtype : DType::kF32, {kTokens, cols}), x_scale = random(DType::kF32, {kTokens});
      const auto op = [&](const Tensor& out, int64_t begin, int64_t count) {
        if (!f8) {
          return MatmulOp{.out = out.rows(begin, count),
                          .x = ConstQuantTensor(ConstTensor(x.rows(begin, count))),
                          .weight = ConstQuantTensor(ConstTensor(w)),
                          .bias = w_scale};
        }
        return MatmulOp{.out = out.rows(begin, count),
                        .x = ConstQuantTensor(x.rows(begin, count), x_scale.rows(begin, count), kF8DynamicToken),
                        .weight = ConstQuantTensor(w, w_scale, kF8Channel),
                        .bias = {}};
      };
      const Tensor whole = make(DType::kF32, {kTokens, kRows}), threaded = make(DType::kF32, {kTokens, kRows}),
                   pieces = make(DType::kF32, {kTokens, kRows});
      one_.run(op(whole, 0, kTokens));
      three_.run(op(threaded, 0, kTokens));
      for (int64_t t = 0, size = 1; t < kTokens; t += size, size = size % 9 + 1) {
        three_.run(op(pieces, t, std::min(size, kTokens - t)));
      }
      expect_same_bits(whole, threaded, "three threads");
      expect_same_bits(whole, pieces, "a few tokens at a time");
    }
  }
}

TEST_F(Invariance, AttentionRowsStandAlone) {
  constexpr int64_t kKvHeads = 2, kHeads = 6, kDim = 24, kBlockSize = 16, kLength = 700, kNumBlocks = 44;
  const Tensor k = random(DType::kBF16, {kNumBlocks, kKvHeads, kBlockSize, kDim}),
               v = random(DType::kBF16, {kNumBlocks, kKvHeads, kBlockSize, kDim});
  std::vector<int32_t> order(kNumBlocks);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i * 29 % order.size());
  const Tensor table = ints(order, {1, kNumBlocks});
  const Tensor q = random(DType::kF32, {kLength, kHeads * kDim});
  for (const int64_t window : {0, 33, 300}) {
    const auto run = [&](Team& team, const Tensor& out, int64_t begin, int64_t count) {
      team.run(PagedAttentionOp{.out = out.rows(begin, count),
                                .quantized = {},
                                .q = q.rows(begin, count),
                                .k_cache = k,
                                .v_cache = v,
                                .query_start = ints({0, static_cast<int32_t>(count)}, {2}),
                                .seq_lens = ints({static_cast<int32_t>(begin + count)}, {1}),
                                .block_table = table,
                                .softmax_scale = 0.2f,
                                .sliding_window = window});
    };
    const Tensor whole = make(DType::kF32, {kLength, kHeads * kDim}),
                 threaded = make(DType::kF32, {kLength, kHeads * kDim}),
                 chunks = make(DType::kF32, {kLength, kHeads * kDim}),
                 singly = make(DType::kF32, {kLength, kHeads * kDim});
    run(one_, whole, 0, kLength);
    run(three_, threaded, 0, kLength);
    for (int64_t t = 0; t < kLength; t += 97) run(three_, chunks, t, std::min<int64_t>(97, kLength - t));
    for (int64_t t = 0; t < kLength; ++t) run(t % 2 == 0 ? one_ : three_, singly, t, 1);
    expect_same_bits(whole, threaded, "three threads");
    expect_same_bits(whole, chunks, "chunks of 97");
    expect_same_bits(whole, singly, "one query at a time, long contexts split over threads");
  }
}

TEST_F(Invariance, MaskedKeysAreNeverRead) {
  // NaN behind the visible range must not leak: the cache there is another sequence's or not written yet.
  constexpr int64_t kDim = 8, kBlockSize = 16, kLength = 40;
  Tensor k = random(DType::kF32, {3, 1, kBlockSize, kDim}), v = random(DType::kF32, {3, 1, kBlockSize, kDim});
  for (int64_t i = kLength * kDim; i < k.num_elements(); ++i) k.data<float>()[i] = v.data<float>()[i] = std::nanf("");
  for (int64_t i = 0; i < 20 * kDim; ++i) k.data<float>()[i] = v.data<float>()[i] = std::nanf("");  // out of the window
  const Tensor q = random(DType::kF32, {4, kDim}), out = make(DType::kF32, {4, kDim});
  three_.run(PagedAttentionOp{.out = out,
                              .quantized = {},
                              .q = q,
                              .k_cache = k,
                              .v_cache = v,
                              .query_start = ints({0, 4}, {2}),
                              .seq_lens = ints({kLength}, {1}),
                              .block_table = ints({0, 1, 2}, {1, 3}),
                              .softmax_scale = 1.0f,
                              .sliding_window = 17});
  for (int64_t i = 0; i < out.num_elements(); ++i) EXPECT_TRUE(std::isfinite(out.data<float>()[i])) << "element " << i;
}

}  // namespace
}  // namespace octet
