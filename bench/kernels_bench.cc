// kernels_bench [threads [probe|formats]]: the CPU kernels on the shapes of SmolLM2-135M, next to what the machine
// reads and multiplies in the same run, and whole forward passes made of them (random weights of the real shapes, so
// that weights come from memory). `formats`: matmuls in every format instead.
#include <fmt/core.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "machine_probe.h"
#include "octet/kernels/backends.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int64_t kLayers = 30, kHidden = 576, kInner = 1536, kHeads = 9, kKvHeads = 3, kDim = 64, kVocab = 49152;
constexpr int64_t kBlockSize = 16;

enum class WeightType { kBf16, kF8 };

double best_seconds(int passes, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < passes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

class Memory {
 public:
  Tensor make(DType dtype, Shape shape) {
    buffers_.emplace_back(Device{}, std::max<int64_t>(shape.num_elements() * dtype_bytes(dtype), 64), "benchmark");
    Tensor tensor(buffers_.back().data(), dtype, shape);
    std::memset(tensor.bytes, 0, static_cast<size_t>(tensor.num_bytes()));
    return tensor;
  }
  // Values of about unit variance (E4M3: of a row scaled to its range).
  Tensor random(DType dtype, Shape shape) {
    Tensor tensor = make(dtype, shape);
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
      // Four uniform 16-bit numbers: near enough to a normal distribution, with weights' share of very small values.
      const auto sum =
          static_cast<int64_t>((seed_ & 0xffff) + (seed_ >> 16 & 0xffff) + (seed_ >> 32 & 0xffff) + (seed_ >> 48));
      const float value = static_cast<float>(sum - 2 * 0xffff) * (1.0f / 37837.0f);
      if (dtype == DType::kF32) tensor.data<float>()[i] = value;
      if (dtype == DType::kBF16) tensor.data<BF16>()[i] = to_bf16(value);
      if (dtype == DType::kI8) tensor.data<int8_t>()[i] = from_f32<int8_t>(value * 40.0f);
      if (dtype == DType::kF8E4M3) tensor.data<F8E4M3>()[i] = to_f8_e4m3(value * 128.0f);  // the largest near 448
    }
    return tensor;
  }
  Tensor ones(Shape shape, float value = 1.0f) {
    Tensor tensor = make(DType::kF32, shape);
    std::fill_n(tensor.data<float>(), tensor.num_elements(), value);
    return tensor;
  }
  QuantTensor weight(WeightType type, int64_t rows, int64_t cols) {
    if (type == WeightType::kBf16) return QuantTensor(random(DType::kBF16, {rows, cols}));
    return QuantTensor(random(DType::kF8E4M3, {rows, cols}), ones({rows}, 1e-3f), kF8Channel);
  }
  QuantTensor activation(WeightType type, int64_t rows, int64_t cols) {
    if (type == WeightType::kBf16) return QuantTensor(random(DType::kF32, {rows, cols}));
    return QuantTensor(random(DType::kF8E4M3, {rows, cols}), ones({rows}, 1e-2f), kF8DynamicToken);
  }
  QuantTensor matrix(const QuantFormat& format, int64_t rows, int64_t cols) {
    const Tensor data = random(format.dtype, {rows, cols});
    if (!format.quantized()) return QuantTensor(data);
    QuantTensor made(data, ones(format.scale_shape(rows, cols), 1e-3f), format);
    if (format.zero_point) made.zero_point = make(DType::kI32, made.scale.shape);
    return made;
  }

 private:
  std::vector<Buffer> buffers_;
  uint64_t seed_ = 1;
};

struct LayerWeights {
  QuantTensor qkv, o, gate_up, down;
  Tensor k_cache, v_cache;
};

struct ModelWeights {
  WeightType type;
  std::vector<LayerWeights> layers;
  QuantTensor head;
  Tensor norm;
  Memory memory;

  ModelWeights(WeightType type_, int64_t num_blocks) : type(type_) {
    for (int64_t i = 0; i < kLayers; ++i) {
      LayerWeights layer{memory.weight(type, (kHeads + 2 * kKvHeads) * kDim, kHidden),
                         memory.weight(type, kHidden, kHidden),
                         memory.weight(type, 2 * kInner, kHidden),
                         memory.weight(type, kHidden, kInner),
                         {},
                         {}};
      layer.k_cache = memory.random(DType::kBF16, {num_blocks, kKvHeads, kBlockSize, kDim});
      layer.v_cache = memory.random(DType::kBF16, {num_blocks, kKvHeads, kBlockSize, kDim});
      layers.push_back(layer);
    }
    head = memory.weight(WeightType::kBf16, kVocab, kHidden);
    norm = memory.ones({kHidden});
  }
  int64_t num_bytes() const {
    int64_t bytes = head.num_bytes();
    for (const LayerWeights& l : layers)
      bytes += l.qkv.num_bytes() + l.o.num_bytes() + l.gate_up.num_bytes() + l.down.num_bytes();
    return bytes;
  }
};

// One step of `num_sequences` sequences with `num_new` new tokens each at a context of `context`, as a model would run
// it.
class ForwardPass {
 public:
  ForwardPass(const Backend& backend, const ModelWeights& model, int64_t num_sequences, int64_t num_new,
              int64_t context)
      : backend_(backend), model_(model), tokens_(num_sequences * num_new), sequences_(num_sequences) {
    const int64_t qkv_cols = (kHeads + 2 * kKvHeads) * kDim;
    residual_ = memory_.random(DType::kF32, {tokens_, kHidden});
    x_ = memory_.random(DType::kF32, {tokens_, kHidden});
    hidden_ = memory_.activation(model.type, tokens_, kHidden);
    qkv_ = memory_.make(DType::kF32, {tokens_, qkv_cols});
    attended_ = memory_.activation(model.type, tokens_, kHidden);
    attended_f32_ = memory_.make(DType::kF32, {tokens_, kHidden});
    gate_up_ = memory_.make(DType::kF32, {tokens_, 2 * kInner});
    inner_ = memory_.activation(model.type, tokens_, kInner);
    last_ = memory_.make(DType::kF32, {num_sequences, kHidden});
    logits_ = memory_.make(DType::kF32, {num_sequences, kVocab});
    positions_ = memory_.make(DType::kI32, {tokens_});
    slots_ = memory_.make(DType::kI32, {tokens_});
    inv_freq_ = memory_.ones({kDim / 2}, 0.01f);
    cos_ = memory_.make(DType::kF32, {tokens_, kDim / 2});
    sin_ = memory_.make(DType::kF32, {tokens_, kDim / 2});
    rows_ = memory_.make(DType::kI32, {num_sequences});
    query_start_ = memory_.make(DType::kI32, {num_sequences + 1});
    seq_lens_ = memory_.make(DType::kI32, {num_sequences});
    const int64_t blocks = (context + kBlockSize - 1) / kBlockSize;
    block_table_ = memory_.make(DType::kI32, {num_sequences, blocks});
    for (int64_t s = 0; s < num_sequences; ++s) {
      query_start_.data<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * num_new);
      seq_lens_.data<int32_t>()[s] = static_cast<int32_t>(context);
      rows_.data<int32_t>()[s] = static_cast<int32_t>((s + 1) * num_new - 1);
      for (int64_t b = 0; b < blocks; ++b) block_table_.row<int32_t>(s)[b] = static_cast<int32_t>(s * blocks + b);
      for (int64_t i = 0; i < num_new; ++i) {
        const int64_t position = context - num_new + i;
        positions_.data<int32_t>()[s * num_new + i] = static_cast<int32_t>(position);
        slots_.data<int32_t>()[s * num_new + i] = static_cast<int32_t>(s * blocks * kBlockSize + position);
      }
    }
  }

  void run() {
    std::memset(residual_.bytes, 0, static_cast<size_t>(residual_.num_bytes()));
    backend_(RopeTableOp{.cos = cos_, .sin = sin_, .positions = positions_, .inv_freq = inv_freq_});
    for (const LayerWeights& layer : model_.layers) {
      backend_(RmsNormOp{.out = hidden_, .x = x_, .residual = residual_, .weight = model_.norm});
      matmul(qkv_, hidden_, layer.qkv);
      backend_(RopeKvOp{.q_out = qkv_.columns(0, kHeads * kDim),
                        .k_cache = layer.k_cache,
                        .v_cache = layer.v_cache,
                        .qkv = qkv_,
                        .cos = cos_,
                        .sin = sin_,
                        .slot_mapping = slots_,
                        .q_norm = {},
                        .k_norm = {}});
      attend(layer);
      matmul(x_, attended_, layer.o);
      backend_(RmsNormOp{.out = hidden_, .x = x_, .residual = residual_, .weight = model_.norm});
      matmul(gate_up_, hidden_, layer.gate_up);
      backend_(SiluAndMulOp{.out = inner_, .x = gate_up_});
      matmul(x_, inner_, layer.down);
    }
    backend_(GatherRowsOp{.out = last_, .x = residual_, .rows = rows_});
    backend_(RmsNormOp{.out = QuantTensor(last_), .x = {}, .residual = last_, .weight = model_.norm});
    matmul(logits_, QuantTensor(last_), model_.head);
  }

  void attend(const LayerWeights& layer) {
    const bool quantized = attended_.format.quantized();
    backend_(PagedAttentionOp{.out = quantized ? attended_f32_ : attended_.data,
                              .quantized = quantized ? attended_ : QuantTensor(),
                              .q = qkv_.columns(0, kHeads * kDim),
                              .k_cache = layer.k_cache,
                              .v_cache = layer.v_cache,
                              .query_start = query_start_,
                              .seq_lens = seq_lens_,
                              .block_table = block_table_,
                              .softmax_scale = 0.125f});
  }

 private:
  void matmul(const Tensor& out, const QuantTensor& x, const QuantTensor& weight) {
    backend_(MatmulOp{.out = out, .x = x, .weight = weight, .bias = {}});
  }

  const Backend& backend_;
  const ModelWeights& model_;
  int64_t tokens_;
  int64_t sequences_;
  Memory memory_;
  Tensor residual_, x_, qkv_, attended_f32_, gate_up_, last_, logits_, positions_, slots_, inv_freq_, cos_, sin_, rows_,
      query_start_, seq_lens_, block_table_;
  QuantTensor hidden_, attended_, inner_;
};

void print_machine(ThreadPool& threads) {
  fmt::print("machine: reads {:.1f} GB/s, multiplies {:.0f} GFLOP/s\n", read_bandwidth(threads) / 1e9,
             peak_flops(threads) / 1e9);
  std::fflush(stdout);
}

void bench_matmul(const Backend& backend, const ModelWeights& model, int64_t num_tokens) {
  struct Case {
    std::string_view name;
    QuantTensor LayerWeights::*weight;
  };
  const Case cases[] = {{"qkv", &LayerWeights::qkv},
                        {"o", &LayerWeights::o},
                        {"gate_up", &LayerWeights::gate_up},
                        {"down", &LayerWeights::down},
                        {"lm_head", nullptr}};
  for (const Case& c : cases) {
    Memory memory;
    const QuantTensor& first = c.weight ? model.layers[0].*c.weight : model.head;
    if (!c.weight && num_tokens > 16) continue;
    const WeightType type = c.weight ? model.type : WeightType::kBf16;
    const QuantTensor x = memory.activation(type, num_tokens, first.data.dim(1));
    const Tensor out = memory.make(DType::kF32, {num_tokens, first.data.dim(0)});
    const int64_t repeats = c.weight ? (num_tokens > 16 ? 6 : kLayers) : 1;
    const double seconds =
        best_seconds(
            num_tokens > 16 ? 3 : 12,
            [&] {
              for (int64_t i = 0; i < repeats; ++i) {
                backend(MatmulOp{.out = out,
                                 .x = x,
                                 .weight = c.weight ? model.layers[static_cast<size_t>(i)].*c.weight : model.head,
                                 .bias = {}});
              }
            }) /
        static_cast<double>(repeats);
    const double flop = 2.0 * static_cast<double>(num_tokens * first.data.num_elements());
    fmt::print("  {:8} T={:<4} {:9.1f} us  {:6.1f} GB/s  {:6.1f} GFLOP/s\n", c.name, num_tokens, seconds * 1e6,
               static_cast<double>(first.num_bytes()) / seconds / 1e9, flop / seconds / 1e9);
    std::fflush(stdout);
  }
}

// Every pair of formats on one shape, with more weights than the processor caches.
void bench_formats(const Backend& backend, ThreadPool& threads) {
  constexpr int64_t kN = 3072, kK = 3072;
  constexpr size_t kMatrices = 12;
  const QuantFormat f32 = plain_format(DType::kF32);
  const QuantFormat f8_group{.dtype = DType::kF8E4M3, .granularity = Granularity::kGroup, .group_cols = 128};
  QuantFormat i8_asymmetric = kI8DynamicToken;
  i8_asymmetric.zero_point = true;
  const std::pair<QuantFormat, QuantFormat> pairs[] = {{kF8DynamicToken, kF8Channel},
                                                       {kF8DynamicGroup, kF8Block},
                                                       {kF8DynamicGroup, f8_group},
                                                       {kI8DynamicToken, kI8Channel},
                                                       {i8_asymmetric, kI8Channel},
                                                       {f32, kF8Channel},
                                                       {f32, kF8Block},
                                                       {f32, kI8Channel},
                                                       {f32, plain_format(DType::kBF16)}};
  for (const int64_t num_tokens : {1, 4, 16, 256}) {
    print_machine(threads);
    for (const auto& [x_format, weight_format] : pairs) {
      Memory memory;
      std::vector<QuantTensor> weights;
      for (size_t i = 0; i < kMatrices; ++i) weights.push_back(memory.matrix(weight_format, kN, kK));
      const QuantTensor x = memory.matrix(x_format, num_tokens, kK);
      const Tensor out = memory.make(DType::kF32, {num_tokens, kN});
      const double seconds = best_seconds(num_tokens > 16 ? 4 : 40,
                                          [&] {
                                            for (const QuantTensor& weight : weights)
                                              backend(MatmulOp{.out = out, .x = x, .weight = weight, .bias = {}});
                                          }) /
                             static_cast<double>(kMatrices);
      fmt::print("  T={:<4} {:30} x {:28} {:9.1f} us  {:6.1f} GB/s  {:6.1f} GFLOP/s\n", num_tokens,
                 x_format.to_string(), weight_format.to_string(), seconds * 1e6,
                 static_cast<double>(weights[0].num_bytes()) / seconds / 1e9,
                 2.0 * static_cast<double>(num_tokens * kN * kK) / seconds / 1e9);
      std::fflush(stdout);
    }
  }
}

void bench_model(const Backend& backend, ThreadPool& threads, WeightType type) {
  const ModelWeights model(type, 512);
  fmt::print("\n{} linears, bf16 lm_head: {:.1f} MB of weights per token\n", type == WeightType::kF8 ? "fp8" : "bf16",
             static_cast<double>(model.num_bytes()) / 1e6);
  for (const int64_t num_tokens : {1, 4, 16, 128, 512}) {
    print_machine(threads);
    bench_matmul(backend, model, num_tokens);
  }
  print_machine(threads);
  const auto forward = [&](std::string_view name, int64_t sequences, int64_t num_new, int64_t context, int passes) {
    ForwardPass pass(backend, model, sequences, num_new, context);
    const double attention = best_seconds(passes, [&] {
      for (const LayerWeights& layer : model.layers) pass.attend(layer);
    });
    const double seconds = best_seconds(passes, [&] { pass.run(); });
    fmt::print("  {:24} {:8.2f} ms, {:7.1f} tok/s, attention {:5.2f} ms, weights at {:5.1f} GB/s\n", name,
               seconds * 1e3, static_cast<double>(sequences * num_new) / seconds, attention * 1e3,
               static_cast<double>(model.num_bytes()) / seconds / 1e9);
    std::fflush(stdout);
  };
  forward("decode, context 128", 1, 1, 128, 20);
  forward("decode, context 512", 1, 1, 512, 20);
  forward("decode, context 4096", 1, 1, 4096, 10);
  forward("decode batch 16 at 128", 16, 1, 128, 10);
  forward("prefill 512", 1, 512, 512, 3);
  print_machine(threads);
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  using namespace octet;
  const int num_threads = argc > 1 ? std::atoi(argv[1]) : ThreadPool::default_num_threads();
  if (num_threads < 1) {
    fmt::print(stderr, "usage: kernels_bench [threads [probe|formats]]\n");
    return 2;
  }
  ThreadPool threads(num_threads);
  if (argc > 2 && std::string_view(argv[2]) == "probe") {
    print_machine(threads);
    return 0;
  }
  ThreadScratch scratch(num_threads);
  const Backend backend(kernel_table(Device{}),
                        Launch{.stream = {}, .threads = &threads, .scratch = &scratch, .features = cpu_features()},
                        DType::kF32);
  fmt::print("{}, {} threads\n", cpu_description(), num_threads);
  if (argc > 2 && std::string_view(argv[2]) == "formats") {
    bench_formats(backend, threads);
    return 0;
  }
  bench_model(backend, threads, WeightType::kF8);
  bench_model(backend, threads, WeightType::kBf16);
}
