// The ops over ranks on 2, 4 and 8 GPUs of this host, as many as there are; where there is one, two ranks share it. The
// oracle is a sum on the host, in rank order, bit for bit.
//
// While a rank's kernel waits for another's on the same GPU, the other must not ask for memory or free any, which may
// wait for all kernels: all_made() stands between. And all CTAs queued must fit: each kernel lets the next one begin.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "octet/base/error.h"
#include "octet/device/graph.h"
#include "octet/device/stream.h"
#include "octet/kernels/backends.h"
#include "octet/tensor/dispatch.h"

namespace octet::ops_test {
namespace {

constexpr Device kFirst{.kind = DeviceKind::kCuda, .index = 0};

int num_gpus() {
  if (!why_no_gpu().empty()) return 0;
  int count = 0;
  for (; count < PeerMemory::kMaxRanks; ++count) {
    try {
      parse_device(fmt::format("cuda:{}", count));
    } catch (const Error&) {
      break;
    }
  }
  return count;
}

// One rank's thread: its GPU, stream and memory.
class Rank {
 public:
  Rank(Comm& own, Device gpu)
      : comm(own), device(gpu), stream_(device), launch{.stream = stream_.get(), .gpu = &gpu_properties(device)} {
    make_current(device);
  }

  // Memory with guards around it, whose bytes check_guards() finds unchanged.
  Tensor make(DType dtype, Shape shape) {
    const int64_t num_bytes = shape.num_elements() * dtype_bytes(dtype);
    buffers_.emplace_back(device, num_bytes + 2 * kGuard, "test");
    fill_bytes(buffers_.back().data(), kGuardByte, num_bytes + 2 * kGuard, launch.stream);
    return Tensor(buffers_.back().data() + kGuard, dtype, shape);
  }
  // After make(), before ops: no rank asks for memory while another's kernel waits for it.
  void all_made() const {
    synchronize(launch.stream);
    comm.barrier();
  }
  void check_guards() const {
    for (const Buffer& buffer : buffers_) {
      std::vector<std::byte> host(static_cast<size_t>(2 * kGuard));
      copy_bytes(host.data(), buffer.data(), kGuard, launch.stream);
      copy_bytes(host.data() + kGuard, buffer.data() + buffer.num_bytes() - kGuard, kGuard, launch.stream);
      synchronize(launch.stream);
      for (const std::byte byte : host) ASSERT_EQ(byte, kGuardByte) << "a guard was overwritten";
    }
  }
  template <class T>
  void write(Tensor to, const std::vector<T>& from) const {
    copy_bytes(to.bytes, from.data(), to.num_bytes(), launch.stream);
    synchronize(launch.stream);
  }
  template <class T>
  std::vector<T> read(ConstTensor from) const {
    std::vector<T> to(static_cast<size_t>(from.num_elements()));
    copy_bytes(to.data(), from.bytes, from.num_bytes(), launch.stream);
    synchronize(launch.stream);
    return to;
  }

  Comm& comm;
  Device device;

 private:
  static constexpr int64_t kGuard = 256;
  static constexpr std::byte kGuardByte{0xa5};
  StreamOwner stream_;
  std::vector<Buffer> buffers_;

 public:
  Launch launch;
};

class PeerCollectives : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
  }

  static std::vector<Device> gpus(int world_size) {
    return num_gpus() == 1 ? std::vector<Device>(static_cast<size_t>(world_size), kFirst)
                           : gpus_of_ranks(kFirst, world_size);
  }

  static std::vector<int> world_sizes() {
    std::vector<int> sizes;
    for (const int size : {2, 3, 4, 8}) {
      if (size <= std::max(num_gpus(), 2)) sizes.push_back(size);
    }
    return sizes;
  }

  // Rethrows what the first failing rank threw.
  static void on_ranks(int world_size, double patience, const std::function<void(Rank&)>& fn) {
    auto comms = make_gpu_comms(gpus(world_size), patience);
    std::vector<std::exception_ptr> faults(comms.size());
    std::vector<std::thread> threads;
    for (auto& comm : comms) {
      threads.emplace_back([&fn, &comm, &faults] {
        try {
          Rank rank(*comm, gpus(comm->world_size())[static_cast<size_t>(comm->rank())]);
          try {
            fn(rank);
            synchronize(rank.launch.stream);
            comm->check_kernels();
            if (HasFatalFailure())
              fail(ErrorCode::kInternal, "a check of a rank failed");  // others may be at a barrier
            comm->barrier();                                           // nobody's memory goes while others may use it
          } catch (...) {
            comm->abort();  // before the memory goes, which waits for the kernels that wait for this rank
            throw;
          }
        } catch (...) {
          faults[static_cast<size_t>(comm->rank())] = std::current_exception();
          comm->abort();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& fault : faults) {
      if (fault) std::rethrow_exception(fault);
    }
  }
};

// What rank `rank` brings to round `round`.
template <class T>
std::vector<T> values_of(int rank, int64_t round, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  uint64_t state = static_cast<uint64_t>(round) * 1000003 + static_cast<uint64_t>(rank) * 7919 + 1;
  for (T& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = from_f32<T>((static_cast<float>(state >> 40) * 0x1p-23f - 1.0f) * (rank % 2 == 0 ? 1.0f : 37.0f));
  }
  return values;
}

template <class T>
std::vector<T> sum_of(int world_size, int64_t round, int64_t count) {
  const std::vector<T> first = values_of<T>(0, round, count);
  std::vector<float> sum(first.size());
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = to_f32(first[i]);
  for (int rank = 1; rank < world_size; ++rank) {
    const std::vector<T> values = values_of<T>(rank, round, count);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += to_f32(values[i]);
  }
  std::vector<T> result(sum.size());
  for (size_t i = 0; i < sum.size(); ++i) result[i] = from_f32<T>(sum[i]);
  return result;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void expect_sums(Rank& rank, int64_t num_bytes) {
  const int64_t columns = num_bytes / 16 % 64 == 0 ? 512 : 8, rows = num_bytes / sizeof(T) / columns;
  const DType dtype = sizeof(T) == 4 ? DType::kF32 : DType::kBF16;
  const Tensor x = rank.make(dtype, {rows, columns});
  const AllReduceOp op{.x = x, .comm = &rank.comm};
  op.check();
  rank.all_made();
  const std::vector<T> expected = sum_of<T>(rank.comm.world_size(), num_bytes, x.num_elements());
  for (const Kernel<AllReduceOp>& kernel : kernel_table(rank.device).of<AllReduceOp>()) {
    if (!kernel.declines(op, rank.launch).empty()) continue;
    for (int again = 0; again < 3; ++again) {
      rank.write(x, values_of<T>(rank.comm.rank(), num_bytes, x.num_elements()));
      kernel.run(op, rank.launch);
      ASSERT_TRUE(same_bits(rank.read<T>(x), expected))
          << kernel.name << " " << num_bytes << " bytes, rank " << rank.comm.rank();
    }
  }
  rank.check_guards();
}

TEST_F(PeerCollectives, AllReduceOfAllSizesIsTheSumInRankOrder) {
  for (const int world_size : world_sizes()) {
    on_ranks(world_size, 20.0, [](Rank& rank) {
      for (int64_t num_bytes :
           {16, 48, 1008, 1024, 2048, 4096, 8192, 16384, 65536, 65552, 262144, 1 << 20, 4 << 20, 16 << 20, 64 << 20}) {
        expect_sums<BF16>(rank, num_bytes);
        if (num_bytes <= 16 << 20) expect_sums<float>(rank, num_bytes);
      }
    });
  }
}

TEST_F(PeerCollectives, AllGatherPutsColumnsSideBySide) {
  for (const int world_size : world_sizes()) {
    on_ranks(world_size, 20.0, [&](Rank& rank) {
      for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
               {1, 64128}, {1, 3}, {5, 33}, {32, 4096}, {7, 16032}, {128, 64128}}) {
        const Tensor part = rank.make(DType::kF32, {rows, columns});
        const Tensor out = rank.make(DType::kF32, {rows, columns * world_size});
        rank.all_made();
        rank.write(part, values_of<float>(rank.comm.rank(), columns, rows * columns));
        Backend(kernel_table(rank.device), rank.launch,
                DType::kBF16)(AllGatherOp{.out = out, .part = part, .comm = &rank.comm});
        const std::vector<float> found = rank.read<float>(out);
        for (int r = 0; r < world_size; ++r) {
          const std::vector<float> expected = values_of<float>(r, columns, rows * columns);
          for (int64_t t = 0; t < rows; ++t) {
            ASSERT_EQ(0, std::memcmp(found.data() + (t * world_size + r) * columns, expected.data() + t * columns,
                                     static_cast<size_t>(columns) * sizeof(float)))
                << rows << " " << columns << " rank " << rank.comm.rank() << " part of " << r;
          }
        }
        rank.check_guards();
      }
    });
  }
}

// All reduce_norm leaves, as bytes.
struct NormOutputs {
  std::vector<uint8_t> out;
  std::vector<float> scale;
  std::vector<BF16> residual;
  bool operator==(const NormOutputs& other) const {
    return same_bits(out, other.out) && same_bits(scale, other.scale) && same_bits(residual, other.residual);
  }
};

// The op in one kernel and as its parts: the same bits.
void expect_parts(Rank& rank, const QuantFormat& format, int64_t rows, int64_t columns) {
  const Tensor x = rank.make(DType::kBF16, {rows, columns}), residual = rank.make(DType::kBF16, {rows, columns});
  const Tensor weight = rank.make(DType::kF32, {columns});
  const Shape scale_shape = format.quantized() ? format.scale_shape(rows, columns) : Shape{1};
  const Tensor scale = rank.make(DType::kF32, scale_shape);
  QuantTensor out(rank.make(format.dtype, {rows, columns}));
  if (format.quantized()) out = QuantTensor(out.data, scale, format);
  const ReduceNormOp op{.reduce = {.x = x, .comm = &rank.comm},
                        .norm = {.out = out, .x = x, .residual = residual, .weight = weight, .epsilon = 1e-5f}};
  op.check();
  rank.all_made();
  rank.write(weight, values_of<float>(7, 1, columns));
  const Backend backend(kernel_table(rank.device), rank.launch, DType::kBF16);
  const auto run = [&](const std::function<void()>& work) {
    rank.write(x, values_of<BF16>(rank.comm.rank(), 5, rows * columns));
    rank.write(residual, values_of<BF16>(9, 2, rows * columns));
    rank.write(scale, std::vector<float>(static_cast<size_t>(scale.num_elements()), 0.25f));
    fill_bytes(out.data.bytes, std::byte{0xff}, out.data.num_bytes(), rank.launch.stream);
    work();
    return NormOutputs{.out = rank.read<uint8_t>(Tensor(out.data.bytes, DType::kF8E4M3, Shape{out.data.num_bytes()})),
                       .scale = rank.read<float>(scale),
                       .residual = rank.read<BF16>(residual)};
  };
  const NormOutputs parts = run([&] {
    backend(op.reduce);
    backend(op.norm);
  });
  const auto& kernels = kernel_table(rank.device).of<ReduceNormOp>();
  ASSERT_EQ(kernels.size(), 1u);
  ASSERT_EQ(kernels.front().declines(op, rank.launch), "");
  for (int again = 0; again < 3; ++again) {
    ASSERT_TRUE(run([&] { kernels.front().run(op, rank.launch); }) == parts)
        << format.to_string() << " [" << rows << ", " << columns << "], rank " << rank.comm.rank();
  }
  rank.check_guards();
}

TEST_F(PeerCollectives, ReduceNormIsItsParts) {
  for (const int world_size : world_sizes()) {
    on_ranks(world_size, 20.0, [](Rank& rank) {
      for (const QuantFormat& format : {plain_format(DType::kBF16), kF8DynamicToken, kF8StaticTensor, kF8DynamicGroup,
                                        kI8DynamicToken, plain_format(DType::kF32)}) {
        for (const int64_t columns : {64, 576, 4096, 8192, 16384}) {
          if (format == kF8DynamicGroup && columns % 128 != 0) continue;
          for (const int64_t rows : {1, 3, 16}) expect_parts(rank, format, rows, columns);
        }
      }
    });
  }
}

// A step's mix of them, recorded once: 1,000 replays with new values each, a rank coming late now and then.
TEST_F(PeerCollectives, ReplaysOfAGraphWithRanksThatComeLate) {
  constexpr int64_t kReplays = 1000;
  struct Size {
    int64_t rows, columns;
  };
  for (const int world_size : world_sizes()) {
    on_ranks(world_size, 20.0, [&](Rank& rank) {
      const Backend backend(kernel_table(rank.device), rank.launch, DType::kBF16);
      std::vector<Size> sizes = {{1, 8192}, {32, 1024}, {1, 64}, {2, 4096}};
      if (num_gpus() > 1) sizes.insert(sizes.end(), {{64, 8192}, {200, 8192}});  // which do not fit beside each other
      std::vector<Tensor> given, summed, gathered;
      for (const Size& size : sizes) {
        given.push_back(rank.make(DType::kBF16, {size.rows, size.columns}));
        summed.push_back(rank.make(DType::kBF16, {size.rows, size.columns}));
        gathered.push_back(rank.make(DType::kF32, {size.rows, size.columns / 2 * world_size}));
      }
      const auto queue = [&] {
        for (size_t i = 0; i < sizes.size(); ++i) {
          octet::copy(summed[i], given[i], rank.launch.stream);
          backend(AllReduceOp{.x = summed[i], .comm = &rank.comm});
          const Tensor part(given[i].bytes, DType::kF32, {sizes[i].rows, sizes[i].columns / 2});
          backend(AllGatherOp{.out = gathered[i], .part = part, .comm = &rank.comm});
          backend(AllReduceOp{.x = summed[i], .comm = &rank.comm});
        }
      };
      rank.comm.barrier();
      queue();
      synchronize(rank.launch.stream);
      rank.comm.barrier();
      const Graph graph = Graph::capture(rank.launch.stream, queue);
      synchronize(rank.launch.stream);
      rank.comm.barrier();
      std::mt19937 random(static_cast<unsigned>(rank.comm.rank() + 1));
      for (int64_t replay = 0; replay < kReplays; ++replay) {
        const size_t looked_at = static_cast<size_t>(replay) % sizes.size();
        const int64_t count = given[looked_at].num_elements();
        rank.write(given[looked_at], values_of<BF16>(rank.comm.rank(), replay, count));
        if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
        graph.replay(rank.launch.stream);
        if (replay % 10 >= 5 && replay + 1 < kReplays && replay % 6 != 0) continue;  // queue several, then look
        std::vector<BF16> expected = sum_of<BF16>(world_size, replay, count);
        for (BF16& value : expected) {  // the sum of sums, all equal
          float sum = to_f32(value);
          for (int r = 1; r < world_size; ++r) sum += to_f32(value);
          value = to_bf16(sum);
        }
        ASSERT_TRUE(same_bits(rank.read<BF16>(summed[looked_at]), expected)) << replay << " " << looked_at;
        if (count <= 1 << 17) {
          const std::vector<float> found = rank.read<float>(gathered[looked_at]);
          const int64_t columns = sizes[looked_at].columns / 2;
          for (int r = 0; r < world_size; ++r) {
            const std::vector<BF16> part = values_of<BF16>(r, replay, count);
            for (int64_t t = 0; t < sizes[looked_at].rows; ++t) {
              ASSERT_EQ(0, std::memcmp(found.data() + (t * world_size + r) * columns, part.data() + t * columns * 2,
                                       static_cast<size_t>(columns) * 4))
                  << replay << " " << looked_at << " part of " << r;
            }
          }
        }
      }
      rank.check_guards();
    });
  }
}

TEST_F(PeerCollectives, ARankThatNeverComesIsNamed) {
  for (const int64_t num_bytes : {int64_t{16384}, int64_t{8} << 20}) {
    const auto start = std::chrono::steady_clock::now();
    try {
      on_ranks(2, 0.5, [&](Rank& rank) {
        const Tensor x = rank.make(DType::kBF16, {num_bytes / 1024, 512});
        rank.all_made();
        if (rank.comm.rank() == 1) {
          while (true) {  // not before the other has given up
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            if (std::chrono::steady_clock::now() - start > std::chrono::seconds(3)) return;
          }
        }
        Backend(kernel_table(rank.device), rank.launch, DType::kBF16)(AllReduceOp{.x = x, .comm = &rank.comm});
      });
      ADD_FAILURE() << "nobody failed";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "rank 0 has waited 0.5 s for rank 1 in vain");
    }
  }
}

TEST_F(PeerCollectives, AbortReleasesKernelsThatWait) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(on_ranks(2, 100.0,
                        [&](Rank& rank) {
                          const Tensor x = rank.make(DType::kBF16, {8, 512});
                          rank.all_made();
                          if (rank.comm.rank() == 1) {
                            std::this_thread::sleep_for(std::chrono::milliseconds(200));
                            fail(ErrorCode::kIo, "rank 1 fails");
                          }
                          Backend(kernel_table(rank.device), rank.launch,
                                  DType::kBF16)(AllReduceOp{.x = x, .comm = &rank.comm});
                        }),
               Error);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(PeerGroups, TooFewGpusAreNamed) {
  if (!why_no_gpu().empty()) GTEST_SKIP() << why_no_gpu();
  try {
    gpus_of_ranks(Device{.kind = DeviceKind::kCuda, .index = num_gpus() - 1}, 2);
    ADD_FAILURE() << "there is no such GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(std::string(error.what()),
              fmt::format("tensor_parallel_size 2: from cuda:{} on there are 1 GPUs, expected 2", num_gpus() - 1));
  }
}

}  // namespace
}  // namespace octet::ops_test
