#include "octet/base/read_ahead.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <thread>
#include <vector>

namespace octet {
namespace {

constexpr int64_t kBytes = 1 << 20;

// Two threads, halves of a matrix each.
class ReadAheadTest : public ::testing::Test {
 protected:
  void read(const std::byte* data, int64_t num_bytes) {
    const ReadAhead::Matrix* matrix = ahead_.begin(data, [&](int thread) {
      const std::byte* begin = data + thread * num_bytes / 2;
      return ReadAhead::Share{begin, begin + num_bytes / 2};
    });
    for (int thread = 0; thread < 2; ++thread) ahead_.end(matrix, thread);
  }
  int64_t steps(int thread) {
    int64_t count = 0;
    while (ahead_.step(thread)) ++count;
    return count;
  }

  ReadAhead ahead_{2};
  std::vector<std::byte> first_ = std::vector<std::byte>(kBytes);
  std::vector<std::byte> second_ = std::vector<std::byte>(kBytes);
};

TEST_F(ReadAheadTest, FetchesNothingBeforeItKnowsTheOrder) {
  EXPECT_FALSE(ahead_.step(0));
  read(first_.data(), kBytes);
  EXPECT_FALSE(ahead_.step(0));
  read(second_.data(), kBytes);
  EXPECT_FALSE(ahead_.step(1));
}

TEST_F(ReadAheadTest, FetchesTheBeginningOfTheNextShareOnce) {
  read(first_.data(), kBytes);
  read(second_.data(), kBytes);
  read(first_.data(), kBytes);
  for (int thread = 0; thread < 2; ++thread) {
    const int64_t count = steps(thread);
    EXPECT_GT(count, 0);
    EXPECT_LT(count * 64, kBytes / 2) << "more than a cache holds";
    EXPECT_FALSE(ahead_.step(thread));
  }
}

TEST_F(ReadAheadTest, FetchesNoMoreThanTheShare) {
  read(first_.data(), kBytes);
  read(second_.data(), 1024);
  read(first_.data(), kBytes);
  EXPECT_EQ(steps(0), 2);
}

TEST(ThreadPoolIdleTest, MembersWorkWhileTheyWait) {
  struct Counting final : IdleWork {
    bool step(int thread) override {
      ++counts[static_cast<size_t>(thread)];
      return true;
    }
    std::array<std::atomic<int>, 2> counts{};
  } idle;
  ThreadPool pool(2, &idle);
  // The caller waits for member 1, and member 1 for the next fork; neither does so for ever.
  pool.run([](int thread) {
    if (thread == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  pool.run([](int) {});
  EXPECT_GT(idle.counts[0], 0);
  EXPECT_GT(idle.counts[1], 0);
}

}  // namespace
}  // namespace octet
