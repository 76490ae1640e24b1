// Long contexts on a GPU: one key among 131072 that a query is made for. Every row of paged attention has to bring back
// its value, with an 8-bit cache as often as with BF16; sums that lose small terms, weights that vanish and positions
// that slip would not.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "octet/device/stream.h"
#include "octet/kernels/backends.h"
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

  template <class T>
  Buffer upload(const std::vector<T>& values, Stream stream) {
    Buffer buffer(device_, static_cast<int64_t>(values.size() * sizeof(T)), "needle test");
    copy_bytes(buffer.data(), values.data(), buffer.num_bytes(), stream);
    return buffer;
  }

  // [Hkv, kKeys, D] as blocks [kBlocks, Hkv, block_size, D] in reverse order, in T, divided by `scale`.
  template <class T>
  Buffer upload_cache(const std::vector<float>& values, float scale, Stream stream) {
    std::vector<T> cache(values.size());
    size_t i = 0;
    for (int64_t block = kBlocks - 1; block >= 0; --block) {
      for (int64_t head = 0; head < kKvHeads; ++head) {
        const float* from = values.data() + at(head, block * kBlockSize);
        for (int64_t e = 0; e < kBlockSize * kHeadDim; ++e) {
          if constexpr (sizeof(T) == 1) {
            cache[i++] = to_f8_e4m3(from[e] / scale);
          } else {
            cache[i++] = to_bf16(from[e] / scale);
          }
        }
      }
    }
    return upload(cache, stream);
  }

  // How many of kernel's rows look like their needle's value: by sequences of one row, or as one of kNeedles rows.
  template <class T>
  void expect_found(const Haystack& h, bool one_sequence) {
    StreamOwner owner(device_);
    const Stream stream = owner.get();
    const auto scale_of = [](const std::vector<float>& values) {
      float amax = 0.0f;
      for (const float value : values) amax = std::max(amax, std::fabs(value));
      return sizeof(T) == 1 ? amax / 448.0f : 1.0f;
    };
    const float k_scale = scale_of(h.keys);
    const float v_scale = scale_of(h.values);
    const Buffer k = upload_cache<T>(h.keys, k_scale, stream);
    const Buffer v = upload_cache<T>(h.values, v_scale, stream);
    std::vector<BF16> q;
    for (int64_t i = 0; i < kNeedles; ++i) {
      for (int64_t head = 0; head < kHeads; ++head) {
        const float* query = h.queries.data() + (i * kKvHeads + head / (kHeads / kKvHeads)) * kHeadDim;
        for (int64_t d = 0; d < kHeadDim; ++d) q.push_back(to_bf16(query[d]));
      }
    }
    const Buffer q_buffer = upload(q, stream);
    const int64_t sequences = one_sequence ? 1 : kNeedles;
    std::vector<int32_t> starts, seq_lens, table;
    for (int64_t s = 0; s <= sequences; ++s) starts.push_back(static_cast<int32_t>(s * kNeedles / sequences));
    for (int64_t s = 0; s < sequences; ++s) {
      seq_lens.push_back(kKeys);
      for (int64_t b = 0; b < kBlocks; ++b) table.push_back(static_cast<int32_t>(kBlocks - 1 - b));
    }
    const Buffer starts_buffer = upload(starts, stream), lens_buffer = upload(seq_lens, stream);
    const Buffer table_buffer = upload(table, stream);
    const Buffer out(device_, static_cast<int64_t>(q.size() * sizeof(float)), "out");
    const Buffer workspace(device_, 64 << 20, "workspace");
    const DType dtype = sizeof(T) == 1 ? DType::kF8E4M3 : DType::kBF16;
    const Shape cache{kBlocks, kKvHeads, kBlockSize, kHeadDim};
    PagedAttentionOp op;
    op.out = out.tensor(DType::kF32, Shape{kNeedles, kHeads * kHeadDim});
    op.q = q_buffer.tensor(DType::kBF16, Shape{kNeedles, kHeads * kHeadDim});
    op.k_cache = k.tensor(dtype, cache);
    op.v_cache = v.tensor(dtype, cache);
    op.query_start = starts_buffer.tensor(DType::kI32, Shape{sequences + 1});
    op.seq_lens = lens_buffer.tensor(DType::kI32, Shape{sequences});
    op.block_table = table_buffer.tensor(DType::kI32, Shape{sequences, kBlocks});
    op.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
    op.k_scale = k_scale;
    op.v_scale = v_scale;
    op.check();
    const Launch launch{.stream = stream,
                        .gpu = &gpu_properties(device_),
                        .workspace = {.data = workspace.data(), .num_bytes = workspace.num_bytes()}};
    for (const auto& kernel : kernel_table(device_).of<PagedAttentionOp>()) {
      if (!kernel.declines(op, launch).empty()) continue;
      fill_bytes(out.data(), std::byte{0xff}, out.num_bytes(), stream);
      kernel.run(op, launch);
      std::vector<float> found(q.size());
      copy_bytes(found.data(), out.data(), out.num_bytes(), stream);
      synchronize(stream);
      EXPECT_EQ(num_found(h, found), kNeedles * kHeads) << kernel.name << ", cache " << dtype_name(dtype);
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
}

INSTANTIATE_TEST_SUITE_P(Patterns, GpuNeedleTest, ::testing::Values(Pattern::kPlain, Pattern::kLoudChannels),
                         [](const auto& pattern) {
                           return pattern.param == Pattern::kPlain ? "Plain" : "LoudChannels";
                         });

}  // namespace
}  // namespace octet::ops_test
