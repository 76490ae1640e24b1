#include "octet/base/queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace octet {
namespace {

TEST(Queue, RefusesWhenFullAndAfterClose) {
  Queue<int> queue(2);
  EXPECT_TRUE(queue.try_push(1));
  EXPECT_TRUE(queue.try_push(2));
  EXPECT_FALSE(queue.try_push(3));
  queue.close();
  EXPECT_FALSE(queue.try_push(4));
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(Queue, HandsEveryValueOverOnce) {
  Queue<int> queue(3);
  int64_t sum = 0;
  std::thread consumer([&] {
    while (auto value = queue.pop()) sum += *value;
  });
  for (int i = 1; i <= 1000; ++i) EXPECT_TRUE(queue.push(i));
  queue.close();
  consumer.join();
  EXPECT_EQ(sum, 500500);
}

}  // namespace
}  // namespace octet
