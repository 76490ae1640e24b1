// The ops over ranks on the CPU: what their headers say, worked out here.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "octet/base/error.h"
#include "octet/tensor/dispatch.h"
#include "tests/ops/parity.h"

namespace octet::ops_test {
namespace {

float value_at(int rank, int64_t i) {
  return std::sin(static_cast<float>(i * 7 + rank * 13)) * std::exp2(static_cast<float>(rank * 2));
}

template <class T>
Tensor tensor_of(std::vector<T>& values, DType dtype, Shape shape) {
  return Tensor(reinterpret_cast<std::byte*>(values.data()), dtype, shape);
}

void on_cpu_ranks(int world_size, const std::function<void(Comm& comm, const Backend& backend)>& fn) {
  auto comms = make_cpu_comms(world_size);
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    threads.emplace_back([&fn, &comm] {
      Team team(1);
      fn(*comm, Backend(kernel_table(Device{}), team.launch(), DType::kF32));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Collectives, AllReduceAddsInF32AndRoundsOnce) {
  constexpr int64_t kRows = 3, kColumns = 40;
  on_cpu_ranks(3, [&](Comm& comm, const Backend& backend) {
    std::vector<float> wide(kRows * kColumns);
    std::vector<BF16> narrow(wide.size());
    for (size_t i = 0; i < wide.size(); ++i) {
      wide[i] = value_at(comm.rank(), static_cast<int64_t>(i));
      narrow[i] = to_bf16(wide[i]);
    }
    backend(AllReduceOp{.x = tensor_of(wide, DType::kF32, {kRows, kColumns}), .comm = &comm});
    backend(AllReduceOp{.x = tensor_of(narrow, DType::kBF16, {kRows, kColumns}), .comm = &comm});
    for (size_t i = 0; i < wide.size(); ++i) {
      float sum = 0.0f, sum_of_rounded = 0.0f;
      for (int rank = 0; rank < 3; ++rank) {
        sum += value_at(rank, static_cast<int64_t>(i));
        sum_of_rounded += to_f32(to_bf16(value_at(rank, static_cast<int64_t>(i))));
      }
      ASSERT_EQ(wide[i], sum);
      ASSERT_EQ(narrow[i].bits, to_bf16(sum_of_rounded).bits);
    }
  });
}

TEST(Collectives, AllGatherPutsColumnsSideBySide) {
  on_cpu_ranks(2, [&](Comm& comm, const Backend& backend) {
    const auto r = static_cast<float>(comm.rank());
    std::vector<float> part = {r, r + 10, r + 20, r + 30}, out(8, -1.0f);
    backend(AllGatherOp{
        .out = tensor_of(out, DType::kF32, {2, 4}), .part = tensor_of(part, DType::kF32, {2, 2}), .comm = &comm});
    EXPECT_EQ(out, (std::vector<float>{0, 10, 1, 11, 20, 30, 21, 31}));
  });
}

TEST(Collectives, ReduceNormIsItsParts) {
  constexpr int64_t kRows = 2, kColumns = 32;
  on_cpu_ranks(2, [&](Comm& comm, const Backend& backend) {
    std::vector<float> x(kRows * kColumns), residual(x.size(), 0.5f), out(x.size()), weight(kColumns, 2.0f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = value_at(comm.rank(), static_cast<int64_t>(i));
    const Tensor share = tensor_of(x, DType::kF32, {kRows, kColumns});
    const RmsNormOp norm{.out = QuantTensor(tensor_of(out, DType::kF32, {kRows, kColumns})),
                         .x = share,
                         .residual = tensor_of(residual, DType::kF32, {kRows, kColumns}),
                         .weight = tensor_of(weight, DType::kF32, {kColumns}),
                         .epsilon = 1e-5f};
    backend(ReduceNormOp{.reduce = {.x = share, .comm = &comm}, .norm = norm});
    for (int64_t t = 0; t < kRows; ++t) {
      double squares = 0.0;
      std::vector<double> sum(kColumns);
      for (int64_t i = 0; i < kColumns; ++i) {
        const int64_t at = t * kColumns + i;
        sum[static_cast<size_t>(i)] = 0.5 + static_cast<double>(value_at(0, at)) + static_cast<double>(value_at(1, at));
        squares += sum[static_cast<size_t>(i)] * sum[static_cast<size_t>(i)];
      }
      for (int64_t i = 0; i < kColumns; ++i) {
        const double expected = 2.0 * sum[static_cast<size_t>(i)] / std::sqrt(squares / kColumns + 1e-5);
        ASSERT_NEAR(out[static_cast<size_t>(t * kColumns + i)], expected, 1e-5);
        ASSERT_NEAR(residual[static_cast<size_t>(t * kColumns + i)], sum[static_cast<size_t>(i)], 1e-5);
      }
    }
  });
}

TEST(Collectives, ChecksSayWhatIsWrong) {
  const auto comm = make_single_comm();
  std::vector<float> x(4);
  EXPECT_THROW((AllReduceOp{.x = tensor_of(x, DType::kF32, {2, 2}), .comm = nullptr}.check()), Error);
  EXPECT_THROW(
      (AllGatherOp{
          .out = tensor_of(x, DType::kF32, {1, 4}), .part = tensor_of(x, DType::kF32, {1, 2}), .comm = comm.get()}
           .check()),
      Error);
}

}  // namespace
}  // namespace octet::ops_test
