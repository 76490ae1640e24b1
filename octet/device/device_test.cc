#include "octet/device/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "octet/device/arena.h"
#include "octet/device/buffer.h"
#include "octet/device/graph.h"
#include "octet/device/memory_limits.h"
#include "octet/device/stream.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

template <class Fn>
std::string error_of(ErrorCode code, Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(DeviceTest, ParsesNames) {
  EXPECT_EQ(parse_device("auto"), Device{});
  EXPECT_EQ(parse_device("cpu"), Device{});
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, [] { parse_device("cuda:1"); }), HasSubstr("; there is: cpu"));
  EXPECT_THAT(error_of(ErrorCode::kUnsupported, [] { parse_device("gpu"); }), HasSubstr("\"gpu\": expected auto"));
  EXPECT_EQ(device_name(Device{}), "cpu");
  EXPECT_EQ(device_name(Device{.kind = DeviceKind::kCuda, .index = 1}), "cuda:1");
  EXPECT_FALSE(supports_graphs(Device{}));
}

// The kernel lists a flag in /proc/cpuinfo only if the operating system saves its registers too.
TEST(DeviceTest, FeaturesAgreeWithTheOperatingSystem) {
  std::ifstream file("/proc/cpuinfo");
  std::string flags;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("flags")) {
      flags = line + " ";
      break;
    }
  }
  if (flags.empty()) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  const auto has = [&](const std::string& flag) { return flags.find(" " + flag + " ") != std::string::npos; };
  const CpuFeatures features = cpu_features();
  EXPECT_EQ(features.avx2_fma, has("avx2") && has("fma") && has("f16c"));
  EXPECT_EQ(features.avx512,
            features.avx2_fma && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl"));
  EXPECT_EQ(features.avx512_vnni, features.avx512 && has("avx512_vnni"));
  EXPECT_EQ(features.avx512_bf16, features.avx512 && has("avx512_bf16"));
  EXPECT_THAT(cpu_description(), HasSubstr(" threads, "));
}

TEST(BufferTest, IsAlignedAndWritableAtEverySize) {
  for (const int64_t bytes :
       {1, 63, 4096, (1 << 18) - 1, 1 << 18, (1 << 21) - 1, 1 << 21, (1 << 21) + 1, (5 << 20) + 17}) {
    Buffer buffer(Device{}, bytes, "test");
    EXPECT_EQ(buffer.num_bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u) << bytes;
    buffer.data()[0] = std::byte{1};
    buffer.data()[bytes - 1] = std::byte{2};
    EXPECT_EQ(buffer.tensor(DType::kU8, Shape{bytes}).num_bytes(), bytes);
  }
  EXPECT_EQ(Buffer(Device{}, 0, "nothing").data(), nullptr);
}

TEST(BufferTest, MovesItsBytes) {
  Buffer first(Device{}, 100, "test");
  std::byte* data = first.data();
  Buffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move): that is the contract
  Buffer third(Device{}, 1 << 20, "test");
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.num_bytes(), 100);
}

TEST(BufferTest, SaysWhatDoesNotFit) {
  const std::string text = error_of(ErrorCode::kMemory, [] { Buffer(Device{}, int64_t{1} << 46, "KV cache"); });
  EXPECT_THAT(text, HasSubstr("KV cache: needs 65536.00 GiB, "));
  EXPECT_THAT(text, HasSubstr("are available"));
  EXPECT_THAT(error_of(ErrorCode::kMemory, [] { Buffer(Device{}, -8, "weights"); }),
              HasSubstr("weights: needs -8 bytes"));
  EXPECT_GT(available_memory_bytes(Device{}), 0);
}

TEST(BufferTest, TensorsStayInside) {
  const Buffer buffer(Device{}, 64, "test");
  EXPECT_EQ(buffer.tensor(DType::kF32, Shape{2, 4}, 32).bytes, buffer.data() + 32);
  EXPECT_THROW(buffer.tensor(DType::kF32, Shape{2, 4}, 36), Error);
  EXPECT_THROW(buffer.tensor(DType::kF32, Shape{1}, 2), Error);
}

TEST(StreamTest, CopiesStridedRows) {
  std::vector<int32_t> from = {1, 2, 3, 4, 5, 6}, to(8, 0);
  const ConstTensor matrix(reinterpret_cast<const std::byte*>(from.data()), DType::kI32, Shape{2, 3});
  const Tensor wide(reinterpret_cast<std::byte*>(to.data()), DType::kI32, Shape{2, 4});
  copy(wide.columns(1, 2), matrix.columns(0, 2), Stream{});
  EXPECT_EQ(to, (std::vector<int32_t>{0, 1, 2, 0, 0, 4, 5, 0}));
  EXPECT_THROW(copy(wide.columns(1, 3), matrix.reshape(Shape{3, 2}), Stream{}), Error);
}

TEST(ArenaTest, GivesAlignedMemoryUntilItIsFull) {
  Arena arena(Device{}, 256);
  const Tensor a = arena.make(DType::kF32, Shape{3});
  const Tensor b = arena.make(DType::kF32, Shape{3});
  EXPECT_EQ(b.bytes - a.bytes, 64);
  {
    const Arena::Scope scope(arena);
    arena.make(DType::kU8, Shape{128});
    EXPECT_EQ(arena.used_bytes(), 256);
    EXPECT_THAT(error_of(ErrorCode::kInternal,
                         [&] {
                           arena.make(DType::kF32, Shape{2, 1});
                         }),
                HasSubstr("f32 [2, 1] needs 8 bytes, 256 of 256 are in use"));
  }
  EXPECT_EQ(arena.used_bytes(), 128);
  EXPECT_EQ(arena.peak_bytes(), 256);
  arena.reset();
  EXPECT_EQ(arena.make(DType::kF32, Shape{3}).bytes, a.bytes);
}

class MemoryLimitsTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(root_); }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root_ = ::testing::TempDir() + "octet_memory_limits";
};

TEST_F(MemoryLimitsTest, WithoutLimitsIsWhatTheMachineHas) {
  write("/proc/meminfo", "MemTotal: 16 kB\nMemAvailable:    1000 kB\n");
  EXPECT_EQ(read_available_memory(root_), 1000 * 1024);
}

TEST_F(MemoryLimitsTest, Version2TakesTheTightestGroupAbove) {
  write("/proc/meminfo", "MemAvailable: 1000 kB\n");
  write("/proc/self/cgroup", "0::/a/b\n");
  write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  write("/sys/fs/cgroup/a/b/memory.current", "5\n");
  write("/sys/fs/cgroup/a/memory.max", "500000\n");
  write("/sys/fs/cgroup/a/memory.current", "300000\n");
  EXPECT_EQ(read_available_memory(root_), 200000);
  write("/sys/fs/cgroup/a/memory.stat", "anon 7\ninactive_file 40000\nactive_file 10000\n");
  EXPECT_EQ(read_available_memory(root_), 250000);
  write("/sys/fs/cgroup/a/memory.current", "900000\n");
  EXPECT_EQ(read_available_memory(root_), 0);
}

TEST_F(MemoryLimitsTest, Version1ReadsTheMemoryController) {
  write("/proc/meminfo", "MemAvailable: 1000 kB\n");
  write("/proc/self/cgroup", "3:cpu:/x\n9:memory:/job\n");
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "100000\n");
  write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "60000\n");
  write("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 20000\n");
  EXPECT_EQ(read_available_memory(root_), 60000);
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(read_available_memory(root_), 1000 * 1024);
}

}  // namespace
}  // namespace octet
