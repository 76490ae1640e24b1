// attention_bench [layer] [decode] [prefill] [check]: times the GPU's paged attention and writes one JSON object per
// line.
//
// Shape: 32 query heads, 8 KV heads of 128, blocks of 16 in random places of a pool much larger than the L2 cache,
// random values. Times are those of CUDA graphs of several launches, replayed, divided by the launches: the median of
// the replays. "read" is the bandwidth of a kernel that only reads the pool, in the same run; "over_us" what an op
// takes beyond its cache's bytes at that bandwidth. "layer" is all between two matmuls of a decode step, rope and cache
// write included, to BF16 and 8 bits: as the fused op ("us") and as its parts ("parts_us"). "check" compares the fast
// rows with cuda.attention_simple instead.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/read_kernel.cuh"
#include "bench/gpu/replay_time.h"
#include "octet/device/stream.h"
#include "octet/kernels/backends.h"
#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/cuda/numbers.cuh"

namespace octet::bench {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int64_t kHeads = 32, kKvHeads = 8, kHeadDim = 128, kBlockSize = 16;
constexpr int64_t kPoolTokens = 1'310'720;
constexpr int64_t kMaxTokens = 8192;
constexpr int64_t kMaxSequences = 512;

__device__ float normal(uint64_t seed) {  // splitmix64, Box-Muller
  seed += 0x9e3779b97f4a7c15u;
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9u;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebu;
  seed ^= seed >> 31;
  const float u = (static_cast<float>(seed >> 40) + 0.5f) * 0x1p-24f;
  return sqrtf(-2.0f * logf(u)) * cospif(2.0f * static_cast<float>(seed & 0xffffff) * 0x1p-24f);
}

template <class T>
__global__ void fill_kernel(T* out, int64_t count, uint64_t seed) {
  for (int64_t i = 2 * (int64_t{blockIdx.x} * blockDim.x + threadIdx.x); i < count;
       i += 2 * int64_t{gridDim.x} * blockDim.x) {
    const float pair[2] = {normal(seed + static_cast<uint64_t>(i)), normal(seed + static_cast<uint64_t>(i) + 1)};
    store_f32(out + i, pair);
  }
}

// The sequences of one op.
struct Batch {
  std::vector<int32_t> new_tokens, seq_lens;
  Buffer integers;
  int64_t slots = 0;  // where the slots of the last tokens lie in it, in bytes
  int64_t num_tokens = 0, width = 0;
};

class Bench {
 public:
  Bench() : random_(1) {
    launch_.stream = stream_.get();
    launch_.gpu = &gpu_properties(kGpu);
    launch_.workspace = make_workspace(workspace_, stream_.get());
    fill(reinterpret_cast<BF16*>(q_.data()), kMaxTokens * kHeads * kHeadDim, 3);
    std::vector<float> angles(kMaxSequences * kHeadDim, 0.6f);  // cosines, then sines
    std::fill(angles.begin() + kMaxSequences * kHeadDim / 2, angles.end(), 0.8f);
    copy_bytes(angles_.data(), angles.data(), angles_.num_bytes(), launch_.stream);
    blocks_.resize(kPoolTokens / kBlockSize);
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::shuffle(blocks_.begin(), blocks_.end(), random_);
  }

  void use_cache(DType dtype) {
    dtype_ = dtype;
    for (Buffer* buffer : {&k_, &v_}) {
      const uint64_t seed = buffer == &k_ ? 100 : 1'000'000'007;
      if (dtype == DType::kBF16) {
        fill(reinterpret_cast<BF16*>(buffer->data()), kElements, seed);
      } else {
        fill(reinterpret_cast<F8E4M3*>(buffer->data()), kElements, seed);
      }
    }
  }

  double read_bandwidth() {
    auto* never = reinterpret_cast<uint32_t*>(out_.data());
    const double us = time(1, [&](int) {
      read_kernel<<<launch_.gpu->num_sms * 8, 512, 0, static_cast<cudaStream_t>(launch_.stream.handle)>>>(
          reinterpret_cast<const uint4*>(k_.data()), k_.num_bytes() / 16, never);
    });
    return static_cast<double>(k_.num_bytes()) / us * 1e-3;
  }

  // Sequences in blocks of the pool from the `first_block`-th on, round and round.
  Batch make_batch(const std::vector<int32_t>& new_tokens, const std::vector<int32_t>& seq_lens, size_t first_block) {
    Batch batch{.new_tokens = new_tokens, .seq_lens = seq_lens};
    const auto sequences = static_cast<int64_t>(seq_lens.size());
    batch.width = (*std::max_element(seq_lens.begin(), seq_lens.end()) + kBlockSize - 1) / kBlockSize;
    std::vector<int32_t> integers{0};
    for (const int32_t n : new_tokens) integers.push_back(integers.back() + n);
    batch.num_tokens = integers.back();
    integers.insert(integers.end(), seq_lens.begin(), seq_lens.end());
    size_t next = first_block;
    std::vector<int32_t> slots;
    for (const int32_t length : seq_lens) {
      int64_t last = 0;
      for (int64_t b = 0; b < batch.width; ++b) {
        const bool used = b * kBlockSize < length;
        integers.push_back(used ? blocks_[next++ % blocks_.size()] : -1);
        if (used) last = integers.back();
      }
      slots.push_back(static_cast<int32_t>(last * kBlockSize + (length - 1) % kBlockSize));
    }
    OCTET_CHECK(static_cast<int64_t>(integers.size()) == sequences + 1 + sequences + sequences * batch.width);
    batch.slots = static_cast<int64_t>(integers.size() * sizeof(int32_t));
    integers.insert(integers.end(), slots.begin(), slots.end());
    const auto bytes = static_cast<int64_t>(integers.size() * sizeof(int32_t));
    batch.integers = Buffer(kGpu, bytes, "batch");
    copy_bytes(batch.integers.data(), integers.data(), bytes, launch_.stream);
    return batch;
  }

  PagedAttentionOp op(const Batch& batch, Buffer& out) const {
    const auto sequences = static_cast<int64_t>(batch.seq_lens.size());
    const Shape cache{kPoolTokens / kBlockSize, kKvHeads, kBlockSize, kHeadDim};
    PagedAttentionOp op;
    op.out = out.tensor(DType::kBF16, Shape{batch.num_tokens, kHeads * kHeadDim});
    op.q = q_.tensor(DType::kBF16, Shape{batch.num_tokens, kHeads * kHeadDim});
    op.k_cache = ConstTensor(k_.data(), dtype_, cache);
    op.v_cache = ConstTensor(v_.data(), dtype_, cache);
    op.query_start = batch.integers.tensor(DType::kI32, Shape{sequences + 1});
    op.seq_lens = batch.integers.tensor(DType::kI32, Shape{sequences}, (sequences + 1) * 4);
    op.block_table = batch.integers.tensor(DType::kI32, Shape{sequences, batch.width}, (2 * sequences + 1) * 4);
    op.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
    op.check();
    return op;
  }
  // All between the matmuls of a decode step.
  RopeAttentionOp layer(const Batch& batch) {
    const int64_t sequences = batch.num_tokens;
    const Tensor qkv = q_.tensor(DType::kBF16, Shape{sequences, (kHeads + 2 * kKvHeads) * kHeadDim});
    RopeAttentionOp layer{.rope = {}, .attention = op(batch, out_)};
    PagedAttentionOp& attention = layer.attention;
    attention.quantized = QuantTensor(other_out_.tensor(DType::kF8E4M3, attention.out.shape),
                                      scales_.tensor(DType::kF32, Shape{sequences}), kF8DynamicToken);
    attention.q = qkv.columns(0, kHeads * kHeadDim);
    layer.rope = {.q_out = qkv.columns(0, kHeads * kHeadDim),
                  .k_cache = Tensor(k_.data(), dtype_, attention.k_cache.shape),
                  .v_cache = Tensor(v_.data(), dtype_, attention.v_cache.shape),
                  .qkv = qkv,
                  .cos = angles_.tensor(DType::kF32, Shape{sequences, kHeadDim / 2}),
                  .sin = angles_.tensor(DType::kF32, Shape{sequences, kHeadDim / 2}, kMaxSequences * kHeadDim * 2),
                  .slot_mapping = batch.integers.tensor(DType::kI32, Shape{sequences}, batch.slots)};
    layer.check();
    return layer;
  }
  Backend backend() const { return Backend(kernel_table(kGpu), launch_, DType::kBF16); }
  Buffer& out() { return out_; }
  Buffer& other_out() { return other_out_; }
  const Launch& launch() const { return launch_; }
  std::mt19937& random() { return random_; }
  DType dtype() const { return dtype_; }

  // Microseconds of one of `count` launches that `work` queues.
  double time(int count, const std::function<void(int)>& work) {
    return replay_time(launch_.stream, count, [&] {
      for (int i = 0; i < count; ++i) work(i);
    });
  }

 private:
  static constexpr int64_t kElements = kPoolTokens * kKvHeads * kHeadDim;
  template <class T>
  static void fill(T* out, int64_t count, uint64_t seed) {
    fill_kernel<<<2048, 256>>>(out, count, seed);
    check_cuda(cudaDeviceSynchronize(), "fill");
  }

  std::mt19937 random_;
  StreamOwner stream_{kGpu};
  Launch launch_;
  Buffer workspace_{kGpu, 64 << 20, "workspace"};
  Buffer angles_{kGpu, kMaxSequences*kHeadDim * 4, "angles"}, scales_{kGpu, kMaxSequences * 4, "scales"};
  Buffer k_{kGpu, kElements * 2, "keys"}, v_{kGpu, kElements * 2, "values"};
  Buffer q_{kGpu, kMaxTokens* kHeads* kHeadDim * 2, "q"};
  Buffer out_{kGpu, kMaxTokens*kHeads*kHeadDim * 2, "out"}, other_out_{kGpu, kMaxTokens*kHeads*kHeadDim * 2, "out"};
  std::vector<int32_t> blocks_;
  DType dtype_ = DType::kBF16;
};

std::vector<int32_t> ragged(Bench& bench, int count, int low, int high) {
  std::uniform_int_distribution<int> lengths(low, high);
  std::vector<int32_t> result(static_cast<size_t>(count));
  for (int32_t& length : result) length = lengths(bench.random());
  return result;
}

int64_t sum(const std::vector<int32_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

void time_decode(Bench& bench, const char* name, const std::vector<int32_t>& seq_lens, double read_gb_s) {
  const int64_t tokens = sum(seq_lens);
  const int count = static_cast<int>(std::clamp<int64_t>(kPoolTokens / tokens, 3, 64));
  const std::vector<int32_t> ones(seq_lens.size(), 1);
  std::vector<Batch> batches;
  for (int i = 0; i < count; ++i) {
    batches.push_back(bench.make_batch(ones, seq_lens, static_cast<size_t>(i * (tokens / kBlockSize + 1))));
  }
  const double us =
      bench.time(count, [&](int i) { bench.backend()(bench.op(batches[static_cast<size_t>(i)], bench.out())); });
  const auto bytes = static_cast<double>(tokens * 2 * kKvHeads * kHeadDim * dtype_bytes(bench.dtype()));
  const auto chosen = bench.backend().choose(bench.op(batches[0], bench.out())).chosen;
  fmt::print(
      R"({{"what": "decode", "batch": "{}", "sequences": {}, "tokens": {}, "cache": "{}", "kernel": "{}", "us": {:.2f}, )"
      R"("gb_s": {:.0f}, "of_read": {:.3f}, "over_us": {:.2f}}})"
      "\n",
      name, seq_lens.size(), tokens, dtype_name(bench.dtype()), chosen, us, bytes / us * 1e-3,
      bytes / us * 1e-3 / read_gb_s, us - bytes / read_gb_s * 1e-3);
  std::fflush(stdout);
}

void time_layer(Bench& bench, const std::string& name, const std::vector<int32_t>& seq_lens, double read_gb_s) {
  const int64_t tokens = sum(seq_lens);
  const int count = static_cast<int>(std::clamp<int64_t>(kPoolTokens / tokens, 3, 64));
  const std::vector<int32_t> ones(seq_lens.size(), 1);
  std::vector<Batch> batches;
  for (int i = 0; i < count; ++i) {
    batches.push_back(bench.make_batch(ones, seq_lens, static_cast<size_t>(i * (tokens / kBlockSize + 1))));
  }
  const Backend backend = bench.backend();
  const auto layer_of = [&](int i) { return bench.layer(batches[static_cast<size_t>(i)]); };
  const double us = bench.time(count, [&](int i) { backend(layer_of(i)); });
  const double parts_us = bench.time(count, [&](int i) {
    const RopeAttentionOp layer = layer_of(i);
    std::apply([&](const auto&... part) { (backend(part), ...); }, layer.parts());
  });
  const auto bytes = static_cast<double>(tokens * 2 * kKvHeads * kHeadDim * dtype_bytes(bench.dtype()));
  fmt::print(R"({{"what": "layer", "batch": "{}", "sequences": {}, "tokens": {}, "cache": "{}", "kernel": "{}", )"
             R"("us": {:.2f}, "parts_us": {:.2f}, "of_read": {:.3f}, "over_us": {:.2f}}})"
             "\n",
             name, seq_lens.size(), tokens, dtype_name(bench.dtype()), backend.choose(layer_of(0)).chosen, us, parts_us,
             bytes / us * 1e-3 / read_gb_s, us - bytes / read_gb_s * 1e-3);
  std::fflush(stdout);
}

void time_layers(Bench& bench, double read_gb_s) {
  for (const int32_t length : {32, 128, 256, 1024, 4096, 32768, 131072}) {
    time_layer(bench, fmt::format("1 of {}", length), {length}, read_gb_s);
  }
  for (const int count : {8, 64, 256}) {
    time_layer(bench, fmt::format("{} of 200", count), std::vector<int32_t>(static_cast<size_t>(count), 200),
               read_gb_s);
  }
  time_layer(bench, "64 of 1k", std::vector<int32_t>(64, 1024), read_gb_s);
  time_layer(bench, "64 of 4k", std::vector<int32_t>(64, 4096), read_gb_s);
  time_layer(bench, "256 of 1k to 4k", ragged(bench, 256, 1024, 4096), read_gb_s);
  time_layer(bench, "64 of 4k to 32k", ragged(bench, 64, 4096, 32768), read_gb_s);
}

// A decode step of `count` sequences of one length, for profilers too.
void time_one(Bench& bench, int count, int32_t length) {
  const std::vector<int32_t> lengths(static_cast<size_t>(count), length);
  for (const DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    bench.use_cache(dtype);
    time_decode(bench, fmt::format("{} of {}", count, length).c_str(), lengths, bench.read_bandwidth());
  }
}

void time_prefill(Bench& bench, const char* name, const std::vector<int32_t>& new_tokens,
                  const std::vector<int32_t>& seq_lens) {
  const Batch batch = bench.make_batch(new_tokens, seq_lens, 0);
  double pairs = 0.0;
  for (size_t s = 0; s < seq_lens.size(); ++s) {
    const double n = new_tokens[s];
    pairs += n * (seq_lens[s] - n) + n * (n + 1) / 2;
  }
  const double flops = 4.0 * kHeads * kHeadDim * pairs;
  const PagedAttentionOp op = bench.op(batch, bench.out());
  for (const Kernel<PagedAttentionOp>& kernel : kernel_table(kGpu).of<PagedAttentionOp>()) {
    if (!kernel.name.starts_with("hopper.") || !kernel.declines(op, bench.launch()).empty()) continue;
    const double us = bench.time(10, [&](int) { kernel.run(op, bench.launch()); });
    fmt::print(R"({{"what": "prefill", "batch": "{}", "cache": "{}", "kernel": "{}", "us": {:.1f}, "tflop_s": {:.1f}}})"
               "\n",
               name, dtype_name(bench.dtype()), kernel.name, us, flops / us * 1e-6);
    std::fflush(stdout);
  }
}

void time_all(Bench& bench, bool layers, bool decode, bool prefill) {
  for (const DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    bench.use_cache(dtype);
    const double read = bench.read_bandwidth();
    fmt::print(R"({{"what": "read", "gpu": "{}", "gb_s": {:.0f}}})"
               "\n",
               gpu_properties(kGpu).name, read);
    if (layers) time_layers(bench, read);
    if (decode) {
      time_decode(bench, "64 of 4k to 32k", ragged(bench, 64, 4096, 32768), read);
      time_decode(bench, "64 of 4k", std::vector<int32_t>(64, 4096), read);
      time_decode(bench, "128 of 256", std::vector<int32_t>(128, 256), read);
      time_decode(bench, "512 of 1500", std::vector<int32_t>(512, 1500), read);
      std::vector<int32_t> filled_up(226, 2100);  // as a recorded step of 256 is
      filled_up.resize(256, 1);
      time_decode(bench, "226 of 2100 and 30 of 1", filled_up, read);
      time_decode(bench, "64 of 1k", std::vector<int32_t>(64, 1024), read);
      time_decode(bench, "256 of 1k to 4k", ragged(bench, 256, 1024, 4096), read);
      for (const int32_t length : {128, 1024, 4096, 32768, 131072}) {
        time_decode(bench, fmt::format("1 of {}", length).c_str(), {length}, read);
      }
    }
    if (!prefill) continue;
    for (const int32_t length : {1024, 4096, 8192}) {
      time_prefill(bench, fmt::format("1 of {}", length).c_str(), {length}, {length});
    }
    time_prefill(bench, "2 of 2048", {2048, 2048}, {2048, 2048});
    time_prefill(bench, "4 of 2048", {2048, 2048, 2048, 2048}, {2048, 2048, 2048, 2048});
    time_prefill(bench, "8 of 1024", std::vector<int32_t>(8, 1024), std::vector<int32_t>(8, 1024));
    time_prefill(bench, "2048 after 30720", {2048}, {32768});
    std::vector<int32_t> new_tokens(33, 1);
    std::vector<int32_t> seq_lens = ragged(bench, 33, 4096, 16384);
    new_tokens[32] = seq_lens[32] = 2048;
    time_prefill(bench, "2048 and 32 decode of 4k to 16k", new_tokens, seq_lens);
  }
}

// What `kernel` makes of a batch against what cuda.attention_simple, the last row, makes of it.
bool check_row(Bench& bench, const Kernel<PagedAttentionOp>& kernel, const Batch& batch) {
  const int64_t count = batch.num_tokens * kHeads * kHeadDim;
  std::vector<BF16> expected(static_cast<size_t>(count)), found(static_cast<size_t>(count));
  const Stream stream = bench.launch().stream;
  kernel_table(kGpu).of<PagedAttentionOp>().back().run(bench.op(batch, bench.other_out()), bench.launch());
  fill_bytes(bench.out().data(), std::byte{0xff}, count * 2, stream);
  kernel.run(bench.op(batch, bench.out()), bench.launch());
  copy_bytes(expected.data(), bench.other_out().data(), count * 2, stream);
  copy_bytes(found.data(), bench.out().data(), count * 2, stream);
  synchronize(stream);
  double worst = 0.0, square = 0.0, square_of_error = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(static_cast<double>(to_f32(expected[i])) - to_f32(found[i]));
    if (!(error <= worst)) worst = error;  // NaN stays
    square += std::pow(to_f32(expected[i]), 2.0);
    square_of_error += error * error;
  }
  const bool ok = worst < 0.02;
  fmt::print(
      R"({{"what": "check", "rows": {}, "cache": "{}", "kernel": "{}", "worst": {:.2g}, "relative": {:.2g}, "ok": {}}})"
      "\n",
      batch.num_tokens, dtype_name(bench.dtype()), kernel.name, worst, std::sqrt(square_of_error / square), ok);
  std::fflush(stdout);
  return ok;
}

// Every fast row on long sequences.
bool check_rows(Bench& bench) {
  struct Lengths {
    std::vector<int32_t> new_tokens, seq_lens;
  };
  bool good = true;
  for (const DType dtype : {DType::kF8E4M3, DType::kBF16}) {
    bench.use_cache(dtype);
    for (const auto& [new_tokens, seq_lens] : {Lengths{{1, 1, 1, 1, 1}, {33000, 5, 4096, 17000, 130000}},
                                               Lengths{{1, 700, 3, 300}, {9000, 2500, 20000, 300}}}) {
      const Batch batch = bench.make_batch(new_tokens, seq_lens, 0);
      for (const auto& kernel : kernel_table(kGpu).of<PagedAttentionOp>()) {
        const bool fast = kernel.name != "cuda.attention_simple";
        if (fast && kernel.declines(bench.op(batch, bench.out()), bench.launch()).empty()) {
          good = check_row(bench, kernel, batch) && good;
        }
      }
    }
  }
  return good;
}

int main(const std::vector<std::string>& arguments) {
  const auto has = [&](const char* word) {
    return std::find(arguments.begin(), arguments.end(), word) != arguments.end();
  };
  Bench bench;
  if (has("check")) return check_rows(bench) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (arguments.size() == 2 && std::isdigit(static_cast<unsigned char>(arguments[0][0]))) {
    time_one(bench, std::stoi(arguments[0]), std::stoi(arguments[1]));
    return EXIT_SUCCESS;
  }
  const bool all = arguments.empty();
  time_all(bench, all || has("layer"), all || has("decode"), all || has("prefill"));
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace octet::bench

int main(int argc, char** argv) {
  try {
    return octet::bench::main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "attention_bench: {}\n", error.what());
    return EXIT_FAILURE;
  }
}
