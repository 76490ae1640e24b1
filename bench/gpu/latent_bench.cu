// latent_bench: times the GPU's rows for multi-head latent attention in DeepSeek's shapes (V2-Lite: 16 heads, V3: 128)
// and writes one JSON object per line: the four ops between the projections of a layer.
//
// Times are those of CUDA graphs, replayed: the median of several. "gbps" is the bytes of the cache or of the weights
// by the time, "tflops" the products' operations (scores of 576, values of 512 a key and head) by it.
#include <vector>

#include "bench/gpu/device_values.cuh"
#include "bench/gpu/replay_time.h"
#include "octet/kernels/backends.h"

namespace octet::bench {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int64_t kLatent = 512, kRotated = 64, kCached = kLatent + kRotated, kPassed = 128, kValue = 128;
constexpr int64_t kBlockSize = 16;
constexpr int kLaunches = 8;

struct Batch {
  int64_t sequences, keys, rows;  // keys and new tokens of each sequence
  int64_t tokens() const { return sequences * rows; }
};
constexpr Batch kBatches[] = {{1, 1024, 1}, {8, 1024, 1},  {32, 1024, 1},  {128, 1024, 1},  {1, 16384, 1},
                              {8, 4096, 1}, {32, 4096, 1}, {128, 4096, 1}, {1, 2048, 2048}, {1, 8192, 2048}};

Tensor random_tensor(Buffer& buffer, DType dtype, const Shape& shape, float scale) {
  const Tensor tensor(buffer.data(), dtype, shape);
  fill_random(tensor.bytes, dtype, tensor.num_elements(), static_cast<uint64_t>(tensor.num_elements()), scale, false);
  return tensor;
}

// A tensor with memory of its own.
struct Owned {
  Buffer buffer;
  Tensor tensor;
  Owned(DType dtype, const Shape& shape, float scale = 1.0f)
      : buffer(kGpu, shape.num_elements() * dtype_bytes(dtype), "bench"),
        tensor(random_tensor(buffer, dtype, shape, scale)) {}
  Owned(const std::vector<int32_t>& values, const Shape& shape, Stream stream)
      : buffer(kGpu, shape.num_elements() * 4, "bench"), tensor(buffer.data(), DType::kI32, shape) {
    copy_bytes(tensor.bytes, values.data(), tensor.num_bytes(), stream);
    synchronize(stream);
  }
};

class Bench {
 public:
  Bench() : workspace_(kGpu, kGpuWorkspaceBytes, "workspace") {
    launch_.stream = stream_.get();
    launch_.gpu = &gpu_properties(kGpu);
    launch_.workspace = make_workspace(workspace_, stream_.get());
  }

  void run(int64_t heads, DType cache_dtype, const Batch& batch) {
    const int64_t t = batch.tokens(), blocks = (batch.keys + kBlockSize - 1) / kBlockSize;
    std::vector<int32_t> table, starts, lengths(static_cast<size_t>(batch.sequences), static_cast<int32_t>(batch.keys));
    // Blocks of a sequence lie apart, as they do in a pool that has been used.
    for (int64_t i = 0; i < batch.sequences * blocks; ++i)
      table.push_back(static_cast<int32_t>(i % batch.sequences * blocks + i / batch.sequences));
    for (int64_t s = 0; s <= batch.sequences; ++s) starts.push_back(static_cast<int32_t>(s * batch.rows));
    std::vector<int32_t> slots;
    for (int64_t i = 0; i < t; ++i) slots.push_back(static_cast<int32_t>(i));
    const Owned block_table(table, Shape{batch.sequences, blocks}, launch_.stream);
    const Owned query_start(starts, Shape{batch.sequences + 1}, launch_.stream);
    const Owned seq_lens(lengths, Shape{batch.sequences}, launch_.stream);
    const Owned slot_mapping(slots, Shape{t}, launch_.stream);
    const Owned cache(cache_dtype, Shape{batch.sequences * blocks, 1, kBlockSize, kCached}, natural_scale(cache_dtype));
    const Owned q(DType::kBF16, Shape{t, heads * (kPassed + kRotated)}), kv(DType::kBF16, Shape{t, kCached});
    const Owned absorbed(DType::kBF16, Shape{t, heads * kCached}), latents(DType::kBF16, Shape{t, heads * kLatent});
    const Owned out(DType::kBF16, Shape{t, heads * kValue});
    const Owned key(DType::kBF16, Shape{heads, kLatent, kPassed}, 0.05f);
    const Owned value(DType::kBF16, Shape{heads, kValue, kLatent}, 0.05f);
    const Owned norm(DType::kF32, Shape{kLatent}), cos(DType::kF32, Shape{t, kRotated / 2}),
        sin(DType::kF32, Shape{t, kRotated / 2});
    const HeadMatmulOp up{
        .out = absorbed.tensor, .out_step = kCached, .x = q.tensor, .x_step = kPassed + kRotated, .weight = key.tensor};
    const LatentKvOp store{.q_out = absorbed.tensor,
                           .cache = cache.tensor,
                           .q = q.tensor,
                           .kv = kv.tensor,
                           .norm = norm.tensor,
                           .cos = cos.tensor,
                           .sin = sin.tensor,
                           .slot_mapping = slot_mapping.tensor};
    PagedAttentionOp attention;
    attention.out = latents.tensor;
    attention.q = absorbed.tensor;
    attention.k_cache = attention.v_cache = cache.tensor;
    attention.query_start = query_start.tensor;
    attention.seq_lens = seq_lens.tensor;
    attention.block_table = block_table.tensor;
    attention.softmax_scale = 0.05f;
    const HeadMatmulOp down{
        .out = out.tensor, .out_step = kValue, .x = latents.tensor, .x_step = kLatent, .weight = value.tensor};
    const auto weights = static_cast<double>(heads * kLatent * kPassed);
    const double pairs = static_cast<double>(t) *
                         (static_cast<double>(batch.keys - batch.rows) + 0.5 * static_cast<double>(batch.rows + 1));
    const double read = static_cast<double>(batch.sequences * batch.keys * kCached * dtype_bytes(cache_dtype));
    measure(heads, cache_dtype, batch, "to latents", up, weights * 2, weights * 2 * static_cast<double>(t));
    measure(heads, cache_dtype, batch, "store", store, 0, 0);
    measure(heads, cache_dtype, batch, "attention", attention, read,
            pairs * static_cast<double>(heads * 2 * (kCached + kLatent)));
    measure(heads, cache_dtype, batch, "from latents", down, weights * 2, weights * 2 * static_cast<double>(t));
  }

 private:
  template <class Op>
  void measure(int64_t heads, DType cache, const Batch& batch, std::string_view what, const Op& op, double bytes,
               double flops) {
    const Backend backend(kernel_table(kGpu), launch_, DType::kBF16);
    const double us = replay_time(launch_.stream, kLaunches, [&] {
      for (int i = 0; i < kLaunches; ++i) backend(op);
    });
    fmt::print(
        R"({{"heads": {}, "cache": "{}", "sequences": {}, "keys": {}, "rows": {}, "what": "{}", "kernel": "{}", "us": {:.2f}, "gbps": {:.0f}, "tflops": {:.0f}}})"
        "\n",
        heads, dtype_name(cache), batch.sequences, batch.keys, batch.rows, what, backend.choose(op).chosen, us,
        bytes / us * 1e-3, flops / us * 1e-6);
    std::fflush(stdout);
  }

  StreamOwner stream_{kGpu};
  Buffer workspace_;
  Launch launch_;
};

}  // namespace
}  // namespace octet::bench

int main() {
  using namespace octet;
  make_current(bench::kGpu);
  bench::Bench bench;
  for (const int64_t heads : {16, 128}) {
    for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
      for (const bench::Batch& batch : bench::kBatches) bench.run(heads, cache, batch);
    }
  }
}
