// The device's types on a GPU; skipped where there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "octet/base/error.h"
#include "octet/device/arena.h"
#include "octet/device/buffer.h"
#include "octet/device/graph.h"
#include "octet/device/stream.h"

namespace octet {
namespace {

class GpuDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device_ = parse_device("auto");
    if (device_.kind == DeviceKind::kCpu) GTEST_SKIP() << "no GPU";
  }
  Device device_;
};

std::vector<int32_t> counted(size_t count) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), 1);
  return values;
}

TEST_F(GpuDeviceTest, HasProperties) {
  const GpuProperties& properties = gpu_properties(device_);
  EXPECT_GE(properties.compute_capability, 90);
  EXPECT_GT(properties.num_sms, 0);
  EXPECT_GT(properties.max_shared_bytes, 48 << 10);
  EXPECT_GT(properties.total_bytes, available_memory_bytes(device_));
  EXPECT_EQ(parse_device("cuda"), device_);
  EXPECT_EQ(parse_device(device_name(device_)), device_);
  EXPECT_THROW(parse_device("cuda:63"), Error);
}

TEST_F(GpuDeviceTest, CopiesThereAndBack) {
  const StreamOwner stream(device_);
  const std::vector<int32_t> values = counted(1 << 20);
  const auto num_bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
  const Buffer there(device_, num_bytes, "test");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(there.data()) % 256, 0u);
  const Buffer pinned = Buffer::pinned(device_, num_bytes, "test");
  EXPECT_EQ(pinned.device(), Device{});
  copy_bytes(there.data(), values.data(), num_bytes, stream.get());
  copy_bytes(pinned.data(), there.data(), num_bytes, stream.get());
  synchronize(stream.get());
  EXPECT_TRUE(std::equal(values.begin(), values.end(), reinterpret_cast<const int32_t*>(pinned.data())));
  std::vector<int32_t> back(values.size());
  fill_bytes(there.data(), std::byte{1}, num_bytes / 2, stream.get());
  copy_bytes(back.data(), there.data(), num_bytes, stream.get());
  synchronize(stream.get());
  EXPECT_EQ(back[values.size() / 2 - 1], 0x01010101);
  EXPECT_EQ(back[values.size() / 2], values[values.size() / 2]);
}

TEST_F(GpuDeviceTest, SaysWhatDoesNotFit) {
  try {
    Buffer(device_, int64_t{1} << 46, "KV cache");
    ADD_FAILURE() << "64 TiB fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMemory);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("KV cache: needs 65536.00 GiB, "));
  }
  const Buffer after(device_, 1 << 20, "after a failure");  // which leaves no error behind
  EXPECT_NE(after.data(), nullptr);
}

TEST_F(GpuDeviceTest, EventsOrderStreams) {
  const StreamOwner first(device_);
  const StreamOwner second(device_);
  const int64_t num_bytes = 64 << 20;
  const Buffer buffer(device_, num_bytes, "test");
  Event start(device_);
  Event written(device_);
  start.record(first.get());
  for (int i = 0; i < 20; ++i) fill_bytes(buffer.data(), std::byte{1}, num_bytes, first.get());
  fill_bytes(buffer.data(), std::byte{2}, num_bytes, first.get());
  written.record(first.get());
  written.make_wait(second.get());
  std::byte last{0};
  copy_bytes(&last, buffer.data() + num_bytes - 1, 1, second.get());
  synchronize(second.get());
  EXPECT_EQ(last, std::byte{2});
  EXPECT_TRUE(written.is_done());
  EXPECT_GT(written.milliseconds_since(start), 0.0);
}

TEST_F(GpuDeviceTest, GraphsAreRecordedAndReplayed) {
  const StreamOwner stream(device_);
  const Buffer buffer(device_, 4, "test");
  std::byte found{0};
  const auto read = [&] {
    copy_bytes(&found, buffer.data(), 1, stream.get());
    synchronize(stream.get());
    return found;
  };
  fill_bytes(buffer.data(), std::byte{1}, 4, stream.get());
  Graph graph = Graph::capture(stream.get(), [&] { fill_bytes(buffer.data(), std::byte{7}, 4, stream.get()); });
  EXPECT_FALSE(graph.empty());
  EXPECT_EQ(read(), std::byte{1}) << "recorded work has run";
  graph.replay(stream.get());
  EXPECT_EQ(read(), std::byte{7});
  EXPECT_THROW(Graph::capture(stream.get(), [] { fail(ErrorCode::kInternal, "no"); }), Error);
  fill_bytes(buffer.data(), std::byte{3}, 4, stream.get());  // the stream is not left recording
  EXPECT_EQ(read(), std::byte{3});
}

TEST_F(GpuDeviceTest, ArenasLieInItsMemory) {
  Arena arena(device_, 1024);
  const Tensor a = arena.make(DType::kBF16, Shape{3});
  const Tensor b = arena.make(DType::kBF16, Shape{3});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.bytes) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.bytes) % 64, 0u);
  EXPECT_NE(a.bytes, b.bytes);
}

}  // namespace
}  // namespace octet
