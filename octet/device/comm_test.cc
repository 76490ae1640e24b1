#include "octet/device/comm.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "octet/device/buffer.h"

namespace octet {
namespace {

template <class Fn>
void on_every_rank(std::vector<std::unique_ptr<Comm>>& comms, Fn&& fn) {
  std::vector<std::thread> threads;
  for (auto& comm : comms) threads.emplace_back([&fn, &comm] { fn(*comm); });
  for (std::thread& thread : threads) thread.join();
}

float value_at(int rank, int64_t i) {
  return std::sin(static_cast<float>(i * 7 + rank * 13)) * std::exp2(static_cast<float>(rank * 3));
}

TEST(CommTest, SumsInRankOrderToTheSameBits) {
  for (const int world : {1, 2, 3, 5}) {
    for (const int64_t n : {1, 15, 16, 33, 1000}) {
      auto comms = make_cpu_comms(world);
      std::vector<std::vector<float>> x(static_cast<size_t>(world));
      for (int r = 0; r < world; ++r) {
        for (int64_t i = 0; i < n; ++i) x[static_cast<size_t>(r)].push_back(value_at(r, i));
      }
      on_every_rank(comms, [&](Comm& comm) {
        auto& mine = x[static_cast<size_t>(comm.rank())];
        comm.all_reduce_sum(Tensor(reinterpret_cast<std::byte*>(mine.data()), DType::kF32, Shape{n}));
      });
      for (int64_t i = 0; i < n; ++i) {
        float expected = value_at(0, i);
        for (int r = 1; r < world; ++r) expected += value_at(r, i);
        for (const auto& mine : x) ASSERT_EQ(mine[static_cast<size_t>(i)], expected) << world << " " << n << " " << i;
      }
    }
  }
}

TEST(CommTest, MaximaAndManyBarriersInARow) {
  auto comms = make_cpu_comms(2);
  on_every_rank(comms, [&](Comm& comm) {
    for (int step = 0; step < 2000; ++step) {
      float x[3] = {static_cast<float>(comm.rank() + step), static_cast<float>(-comm.rank()), 1.0f};
      comm.all_reduce_max(Tensor(reinterpret_cast<std::byte*>(x), DType::kF32, Shape{3}));
      ASSERT_EQ(x[0], static_cast<float>(step + 1));
      ASSERT_EQ(x[1], 0.0f);
      comm.barrier();
    }
  });
}

TEST(CommTest, GathersColumnsSideBySide) {
  auto comms = make_cpu_comms(3);
  on_every_rank(comms, [&](Comm& comm) {
    const auto r = static_cast<float>(comm.rank());
    const float part[4] = {r, r + 10, r + 20, r + 30};
    float out[12] = {};
    comm.all_gather_columns(ConstTensor(reinterpret_cast<const std::byte*>(part), DType::kF32, Shape{2, 2}),
                            Tensor(reinterpret_cast<std::byte*>(out), DType::kF32, Shape{2, 6}));
    const float expected[12] = {0, 10, 1, 11, 2, 12, 20, 30, 21, 31, 22, 32};
    for (int i = 0; i < 12; ++i) ASSERT_EQ(out[i], expected[i]) << i;
  });
}

TEST(CommTest, AbortWakesThoseWhoWait) {
  auto comms = make_cpu_comms(3);
  std::atomic<int> num_thrown{0};
  on_every_rank(comms, [&](Comm& comm) {
    if (comm.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the others sleep by now
      comm.abort();
      return;
    }
    EXPECT_THROW(comm.barrier(), Error);
    EXPECT_THROW(comm.barrier(), Error);  // later calls too
    ++num_thrown;
  });
  EXPECT_EQ(num_thrown, 2);
}

TEST(CommTest, RanksWithDifferentShapesAllFail) {
  auto comms = make_cpu_comms(2);
  std::atomic<int> num_thrown{0};
  on_every_rank(comms, [&](Comm& comm) {
    std::vector<float> x(8);
    const Tensor mine(reinterpret_cast<std::byte*>(x.data()), DType::kF32, Shape{comm.rank() + 4});
    try {
      comm.all_reduce_sum(mine);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInternal);
      ++num_thrown;
    }
  });
  EXPECT_EQ(num_thrown, 2);
}

TEST(CommTest, OneRankIsTheIdentity) {
  const auto comm = make_single_comm();
  float x[2] = {1, 2};
  float out[2] = {};
  const Tensor tensor(reinterpret_cast<std::byte*>(x), DType::kF32, Shape{1, 2});
  comm->all_reduce_sum(tensor);
  comm->all_gather_columns(tensor, Tensor(reinterpret_cast<std::byte*>(out), DType::kF32, Shape{1, 2}));
  comm->barrier();
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[1], 2);
  EXPECT_EQ(comm->world_size(), 1);
}

}  // namespace
}  // namespace octet
