// Long contexts on a GPU: one key among 131072 that a query is made for. Every row of paged attention has to bring back
// its value, with an 8-bit cache as often as with BF16; sums that lose small terms, weights that vanish and positions
// that slip would not.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "octet/device/stream.h"
#include "octet/kernels/backends.h"
#include "octet/tensor/dispatch.h"
#include "tests/ops/parity.h"
#include "tests/ops/random.h"

namespace octet::ops_test {
namespace {

constexpr int64_t kKeys = 131072, kHeads = 8, kKvHeads = 2, kHeadDim = 128, kBlockSize = 16, kNeedles = 32;
constexpr int64_t kBlocks = kKeys / kBlockSize;
constexpr double kScore = 15.0;  // of a needle; the others' exponentials sum to about exp(12.3)

enum class Pattern { kPlain, kLoudChannels };

// Needle i lies at positions[i] in every KV head, with a query and a value of its own.
struct Haystack {
  std::vector<float> keys, values;  // [Hkv, kKeys, D]
  std::vector<float> queries;       // [kNeedles, Hkv, D]
  std::vector<int64_t> positions;
};

size_t at(int64_t head, int64_t position) { return static_cast<size_t>((head * kKeys + position) * kHeadDim); }

Haystack make_haystack(Pattern pattern, uint64_t seed) {
  Random random(seed);
  Haystack h;
  // Cheap noise: a table of normal values read from random places.
  std::vector<float> noise(1 << 16);
  for (float& value : noise) value = random.normal();
  const auto fill = [&](std::vector<float>& out) {
    out.resize(static_cast<size_t>(kKvHeads * kKeys * kHeadDim));
    for (size_t i = 0; i < out.size(); i += 4) {
      const uint64_t bits = random.next();
      for (size_t j = 0; j < 4; ++j) out[i + j] = noise[bits >> (16 * j) & 0xffff];
    }
  };
  fill(h.keys);
  fill(h.values);
  const auto loud = [&](int64_t d) { return pattern == Pattern::kLoudChannels && (d == 3 || d == 77); };
  for (int64_t i = 0; i < kNeedles; ++i) {
    // The ends, the edges of blocks, splits and tiles, and anywhere.
    const int64_t edges[] = {0, 15, 16, 127, 128, 1023, 1024, 4095, 4096, 16384, 65535, 65536, kKeys - 200};
    h.positions.push_back(i < 13 ? edges[i] : 70000 + (i - 13) * 3000 + random.between(0, 2000));
    for (int64_t head = 0; head < kKvHeads; ++head) {
      double square = 0.0;
      std::vector<float> query(kHeadDim);
      for (int64_t d = 0; d < kHeadDim; ++d) {
        query[static_cast<size_t>(d)] = loud(d) ? 0.0f : to_f32(to_bf16(random.normal()));
        square += std::pow(query[static_cast<size_t>(d)], 2.0);
      }
      const double factor = kScore * std::sqrt(static_cast<double>(kHeadDim)) / square;
      for (int64_t d = 0; d < kHeadDim; ++d) {
        h.keys[at(head, h.positions.back()) + static_cast<size_t>(d)] =
            static_cast<float>(factor * query[static_cast<size_t>(d)]);
      }
      h.queries.insert(h.queries.end(), query.begin(), query.end());
    }
  }
  for (size_t i = 0; i < h.keys.size(); ++i) {
    if (loud(static_cast<int64_t>(i % kHeadDim))) h.keys[i] = 40.0f * noise[i & 0xffff];
  }
  return h;
}

class GpuNeedleTest : public ::testing::TestWithParam<Pattern> {
 protected:
  void SetUp() override {
    device_ = parse_device("auto");
    if (device_.kind == DeviceKind::kCpu) GTEST_SKIP() << "no GPU";
  }

  // An op, the memory of its arguments and the stream that they were copied on.
  struct OnGpu {
    StreamOwner stream;
    std::vector<Buffer> buffers;
    PagedAttentionOp op;
  };

  template <class T>
  ConstTensor upload(const std::vector<T>& values, Shape shape, OnGpu& to) {
    to.buffers.emplace_back(device_, static_cast<int64_t>(values.size() * sizeof(T)), "needle test");
    copy_bytes(to.buffers.back().data(), values.data(), to.buffers.back().num_bytes(), to.stream.get());
    return to.buffers.back().tensor(DTypeOf<T>::value, shape);
  }

  // [Hkv, kKeys, D] as blocks [kBlocks, Hkv, block_size, D] in reverse order, divided by `scale`.
  template <class T>
  ConstTensor upload_cache(const std::vector<float>& values, float scale, OnGpu& to) {
    std::vector<T> cache;
    cache.reserve(values.size());
    for (int64_t block = kBlocks - 1; block >= 0; --block) {
      for (int64_t head = 0; head < kKvHeads; ++head) {
        const float* from = values.data() + at(head, block * kBlockSize);
        for (int64_t e = 0; e < kBlockSize * kHeadDim; ++e) cache.push_back(from_f32<T>(from[e] / scale));
      }
    }
    return upload(cache, Shape{kBlocks, kKvHeads, kBlockSize, kHeadDim}, to);
  }

  // Needle i's query in all heads of row i; the rows are sequences of their own, or the last of one.
  template <class T>
  OnGpu make_op(const Haystack& h, bool one_sequence) {
    const auto scale_of = [](const std::vector<float>& values) {
      float amax = 0.0f;
      for (const float value : values) amax = std::max(amax, std::fabs(value));
      return sizeof(T) == 1 ? amax / kMaxF8E4M3 : 1.0f;
    };
    std::vector<BF16> q;
    for (int64_t i = 0; i < kNeedles; ++i) {
      for (int64_t head = 0; head < kHeads; ++head) {
        const float* query = h.queries.data() + (i * kKvHeads + head / (kHeads / kKvHeads)) * kHeadDim;
        for (int64_t d = 0; d < kHeadDim; ++d) q.push_back(to_bf16(query[d]));
      }
    }
    const int64_t sequences = one_sequence ? 1 : kNeedles;
    std::vector<int32_t> starts, table;
    for (int64_t s = 0; s <= sequences; ++s) starts.push_back(static_cast<int32_t>(s * kNeedles / sequences));
    for (int64_t e = 0; e < sequences * kBlocks; ++e) table.push_back(static_cast<int32_t>(kBlocks - 1 - e % kBlocks));
    OnGpu result{.stream = StreamOwner(device_), .buffers = {}, .op = {}};
    PagedAttentionOp& op = result.op;
    result.buffers.emplace_back(device_, kNeedles * kHeads * kHeadDim * int64_t{sizeof(float)}, "out");
    op.out = result.buffers.back().tensor(DType::kF32, Shape{kNeedles, kHeads * kHeadDim});
    op.q = upload(q, Shape{kNeedles, kHeads * kHeadDim}, result);
    op.k_scale = scale_of(h.keys);
    op.v_scale = scale_of(h.values);
    op.k_cache = upload_cache<T>(h.keys, op.k_scale, result);
    op.v_cache = upload_cache<T>(h.values, op.v_scale, result);
    op.query_start = upload(starts, Shape{sequences + 1}, result);
    op.seq_lens = upload(std::vector<int32_t>(static_cast<size_t>(sequences), kKeys), Shape{sequences}, result);
    op.block_table = upload(table, Shape{sequences, kBlocks}, result);
    op.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
    op.check();
    return result;
  }

  // Every row of the table finds every needle.
  template <class T>
  void expect_found(const Haystack& h, bool one_sequence) {
    const OnGpu on_gpu = make_op<T>(h, one_sequence);
    const PagedAttentionOp& op = on_gpu.op;
    const Buffer workspace(device_, 64 << 20, "workspace");
    const Launch launch{.stream = on_gpu.stream.get(),
                        .gpu = &gpu_properties(device_),
                        .workspace = make_workspace(workspace, on_gpu.stream.get())};
    for (const auto& kernel : kernel_table(device_).of<PagedAttentionOp>()) {
      if (!kernel.declines(op, launch).empty()) continue;
      fill_bytes(op.out.bytes, std::byte{0xff}, op.out.num_bytes(), launch.stream);
      kernel.run(op, launch);
      std::vector<float> found(static_cast<size_t>(op.out.num_elements()));
      copy_bytes(found.data(), op.out.bytes, op.out.num_bytes(), launch.stream);
      synchronize(launch.stream);
      EXPECT_EQ(num_found(h, found), kNeedles * kHeads) << kernel.name << ", cache " << dtype_name(op.k_cache.dtype);
    }
  }

  // The same of fused kernels, which take few sequences: queries that turn by no angle, and new tokens that are in the
  // cache already.
  template <class T>
  void expect_found_by_fused(const Haystack& h) {
    constexpr int64_t kFew = 8;
    static_assert(kNeedles % kFew == 0);
    OnGpu on_gpu = make_op<T>(h, false);
    const PagedAttentionOp& attention = on_gpu.op;
    const Buffer workspace(device_, 64 << 20, "workspace");
    const Launch launch{.stream = on_gpu.stream.get(),
                        .gpu = &gpu_properties(device_),
                        .workspace = make_workspace(workspace, on_gpu.stream.get())};
    const Shape angles{kNeedles, kHeadDim / 2};
    const auto same = [](float value) { return std::vector<float>(kNeedles * kHeadDim / 2, value); };
    const Shape qkv{kNeedles, (kHeads + 2 * kKvHeads) * kHeadDim};
    const Buffer projections(device_, qkv.num_elements() * int64_t{sizeof(BF16)}, "qkv");
    const Tensor all = projections.tensor(DType::kBF16, qkv);
    fill_bytes(projections.data(), std::byte{0}, projections.num_bytes(), launch.stream);
    const Tensor q = all.columns(0, kHeads * kHeadDim);
    octet::copy(q, attention.q, launch.stream);
    RopeAttentionOp op{.rope = {.q_out = q,
                                .k_cache = Tensor(const_cast<std::byte*>(attention.k_cache.bytes), DTypeOf<T>::value,
                                                  attention.k_cache.shape),
                                .v_cache = Tensor(const_cast<std::byte*>(attention.v_cache.bytes), DTypeOf<T>::value,
                                                  attention.v_cache.shape),
                                .qkv = all,
                                .cos = upload(same(1.0f), angles, on_gpu),
                                .sin = upload(same(0.0f), angles, on_gpu),
                                .slot_mapping = upload(std::vector<int32_t>(kNeedles, -1), Shape{kNeedles}, on_gpu),
                                .k_scale = attention.k_scale,
                                .v_scale = attention.v_scale},
                       .attention = attention};
    op.attention.q = q;
    op.check();
    for (const auto& kernel : kernel_table(device_).of<RopeAttentionOp>()) {
      fill_bytes(attention.out.bytes, std::byte{0xff}, attention.out.num_bytes(), launch.stream);
      for (int64_t first = 0; first < kNeedles; first += kFew) {
        const RopeAttentionOp part = sequences_of(op, first, kFew, attention.query_start.rows(0, kFew + 1));
        ASSERT_EQ(kernel.declines(part, launch), "");
        kernel.run(part, launch);
      }
      std::vector<float> found(static_cast<size_t>(attention.out.num_elements()));
      copy_bytes(found.data(), attention.out.bytes, attention.out.num_bytes(), launch.stream);
      synchronize(launch.stream);
      EXPECT_EQ(num_found(h, found), kNeedles * kHeads) << kernel.name << ", cache " << dtype_name(DTypeOf<T>::value);
    }
  }

  static int64_t num_found(const Haystack& h, const std::vector<float>& out) {
    int64_t count = 0;
    for (int64_t i = 0; i < kNeedles; ++i) {
      for (int64_t head = 0; head < kHeads; ++head) {
        const float* found = out.data() + (i * kHeads + head) * kHeadDim;
        const float* value = h.values.data() + at(head / (kHeads / kKvHeads), h.positions[static_cast<size_t>(i)]);
        double dot = 0.0, square = 0.0;
        for (int64_t d = 0; d < kHeadDim; ++d) {
          dot += static_cast<double>(found[d]) * value[d];
          square += static_cast<double>(value[d]) * value[d];
        }
        // The weight it had: exp(15) of that and the others' exponentials, 0.94; other needles' values are as random.
        if (dot > 0.8 * square && dot < 1.1 * square) ++count;
      }
    }
    return count;
  }

 private:
  Device device_;
};

TEST_P(GpuNeedleTest, EveryRowFindsIt) {
  const Haystack haystack = make_haystack(GetParam(), 7);
  for (const bool one_sequence : {false, true}) {
    SCOPED_TRACE(one_sequence ? "rows of one sequence" : "a sequence each");
    expect_found<BF16>(haystack, one_sequence);
    expect_found<F8E4M3>(haystack, one_sequence);
  }
  expect_found_by_fused<BF16>(haystack);
  expect_found_by_fused<F8E4M3>(haystack);
}

INSTANTIATE_TEST_SUITE_P(Patterns, GpuNeedleTest, ::testing::Values(Pattern::kPlain, Pattern::kLoudChannels),
                         [](const auto& pattern) {
                           return pattern.param == Pattern::kPlain ? "Plain" : "LoudChannels";
                         });

}  // namespace
}  // namespace octet::ops_test
