// matmul_bench [quick | large | rows | tune | formats]: times the GPU's matmul rows and writes one JSON object per
// line.
//
// Times are those of CUDA graphs of many launches, replayed, divided by the launches: the median of several replays.
// Weights rotate through a pool much larger than the L2 cache. Values are random. "read" is the bandwidth of a kernel
// that only reads the pool, in the same run. "quick": few tokens and 8B only; "large": many tokens only; "rows"
// times every row that takes a linear of some tokens, "tune" every choice of the ring on the four linears instead;
// "formats": the 8B layer in every 8-bit format beside BF16.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "bench/gpu/device_values.cuh"
#include "bench/gpu/read_kernel.cuh"
#include "bench/gpu/replay_time.h"
#include "octet/kernels/backends.h"
#include "octet/kernels/hopper/matmul_ring.h"

namespace octet::bench {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};

struct Linear {
  const char* name;
  int64_t channels, k;
};
struct LayerShape {
  const char* name;
  std::array<Linear, 4> linears;
};
constexpr LayerShape kLayers[] = {
    {"8b", {{{"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}}}},
    {"70b", {{{"qkv", 10240, 8192}, {"o", 8192, 8192}, {"gate_up", 57344, 8192}, {"down", 8192, 28672}}}},
};
struct Formats {
  std::string_view name;
  QuantFormat x, weight;

  DType dtype() const { return weight.dtype; }
  int64_t bytes(const Linear& l) const { return l.channels * l.k * dtype_bytes(dtype()); }
};
constexpr Formats kF8{"f8_e4m3", kF8DynamicToken, kF8Channel};
constexpr Formats kBF16{"bf16", plain_format(DType::kBF16), plain_format(DType::kBF16)};
constexpr Formats kAllFormats[] = {
    kF8, {"f8_e4m3 blocks", kF8DynamicGroup, kF8Block}, {"i8", kI8DynamicToken, kI8Channel}, kBF16};
constexpr int64_t kSmallTokens[] = {1, 4, 8, 16, 32, 64};
constexpr int64_t kLargeTokens[] = {128, 256, 512, 2048, 8192};
constexpr int64_t kMaxTokens = 8192;
constexpr int64_t kMaxScales = kMaxTokens * 28672 / 128;

class Bench {
 public:
  explicit Bench(int64_t pool_bytes)
      : pool_(kGpu, pool_bytes, "weights"),
        x_(kGpu, kMaxTokens * 28672 * 2, "x"),
        out_(kGpu, kMaxTokens * 57344 * 2, "out"),
        scales_(kGpu, 4 * kMaxScales, "scales") {
    launch_.stream = stream_.get();
    launch_.gpu = &gpu_properties(kGpu);
    fill_random(scales_.data(), DType::kF32, kMaxScales, 7, 0.01f, true);
  }

  // Weights and activations are random numbers of one type at a time.
  void fill(const Formats& formats) {
    const DType dtype = formats.dtype();
    fill_random(pool_.data(), dtype, pool_.num_bytes() / dtype_bytes(dtype), 1, natural_scale(dtype));
    fill_random(x_.data(), dtype, x_.num_bytes() / dtype_bytes(dtype), 2, natural_scale(dtype));
    formats_ = formats;
  }

  double read_bandwidth() {
    auto* never = reinterpret_cast<uint32_t*>(out_.data());
    const double us = time(1, [&] {
      read_kernel<<<launch_.gpu->num_sms * 8, 512, 0, static_cast<cudaStream_t>(launch_.stream.handle)>>>(
          reinterpret_cast<const uint4*>(pool_.data()), pool_.num_bytes() / 16, never);
    });
    return static_cast<double>(pool_.num_bytes()) / us * 1e-3;
  }

  // The matmul of one linear; `place`: where in the pool its weight begins. Moves to the next place.
  MatmulOp linear(const Linear& l, int64_t tokens, DType out, int64_t& place) const {
    const int64_t bytes = formats_.bytes(l);
    if (place + bytes > pool_.num_bytes()) place = 0;
    MatmulOp op;
    op.x = matrix(x_.data(), formats_.x, tokens, l.k);
    op.weight = matrix(pool_.data() + place, formats_.weight, l.channels, l.k);
    op.out = Tensor(out_.data(), out, Shape{tokens, l.channels});
    place += (bytes + 255) / 256 * 256;
    return op;
  }
  std::string_view chosen(const MatmulOp& op) const { return backend_().choose(op).chosen; }
  void run(const MatmulOp& op) const { backend_()(op); }
  void run(const MatmulOp& op, const RingPlan& plan) const { run_ring(op, launch_, plan); }
  // The rows that take this matmul, the backend's choice first.
  std::vector<Kernel<MatmulOp>> rows(const MatmulOp& op) const {
    std::vector<Kernel<MatmulOp>> found;
    for (const Kernel<MatmulOp>& kernel : kernel_table(kGpu).of<MatmulOp>()) {
      if (kernel.name != "cuda.matmul_simple" && kernel.declines(op, launch_).empty()) found.push_back(kernel);
    }
    return found;
  }
  void run(const MatmulOp& op, const Kernel<MatmulOp>& row) const { row.run(op, launch_); }
  int64_t pool_bytes() const { return pool_.num_bytes(); }

  // Microseconds of one of the `count` launches that `work` queues.
  double time(int count, const std::function<void()>& work) { return replay_time(launch_.stream, count, work); }

 private:
  ConstQuantTensor matrix(const std::byte* data, const QuantFormat& format, int64_t rows, int64_t columns) const {
    const ConstTensor values(data, format.dtype, Shape{rows, columns});
    if (!format.quantized()) return ConstQuantTensor(values);
    return {values, ConstTensor(scales_.data(), DType::kF32, format.scale_shape(rows, columns)), format};
  }
  Backend backend_() const { return Backend(kernel_table(kGpu), launch_, DType::kBF16); }

  StreamOwner stream_{kGpu};
  Launch launch_;
  Buffer pool_, x_, out_, scales_;
  Formats formats_ = kF8;
};

// Enough launches that the graph's start is no part of the time, few enough for a short run.
int num_launches(const Bench& bench, const Linear& l, int64_t tokens, const Formats& formats) {
  const double bytes = static_cast<double>(formats.bytes(l));
  const double flops = 2.0 * static_cast<double>(l.channels * l.k * tokens);
  const double about_us = std::max(bytes / 3e6, flops / 6e8);
  const double around_the_pool = static_cast<double>(bench.pool_bytes()) / bytes;
  return static_cast<int>(std::clamp(std::min(around_the_pool, 20000.0 / about_us), 2.0, 200.0));
}

void print_linear(const char* layer, const Linear& l, int64_t tokens, const Formats& formats, double us,
                  std::string_view kernel) {
  const auto bytes = static_cast<double>(formats.bytes(l));
  const auto flops = 2.0 * static_cast<double>(l.channels * l.k * tokens);
  fmt::print(
      R"({{"what": "linear", "layer": "{}", "linear": "{}", "n": {}, "k": {}, "m": {}, "dtype": "{}", "kernel": "{}", )"
      R"("us": {:.3f}, "gb_s": {:.0f}, "tflop_s": {:.1f}}})"
      "\n",
      layer, l.name, l.channels, l.k, tokens, formats.name, kernel, us, bytes / us * 1e-3, flops / us * 1e-6);
  std::fflush(stdout);
}

void time_linear(Bench& bench, const char* layer, const Linear& l, int64_t tokens, const Formats& formats, DType out) {
  const int count = num_launches(bench, l, tokens, formats);
  int64_t place = 0;
  const double us = bench.time(count, [&] {
    for (int i = 0; i < count; ++i) bench.run(bench.linear(l, tokens, out, place));
  });
  print_linear(layer, l, tokens, formats, us, bench.chosen(bench.linear(l, tokens, out, place)));
}

// The four linears of a layer, back to back, over and over.
void time_layer(Bench& bench, const LayerShape& layer, int64_t tokens, const Formats& formats) {
  double bytes = 0.0, flops = 0.0;
  for (const Linear& l : layer.linears) {
    bytes += static_cast<double>(formats.bytes(l));
    flops += 2.0 * static_cast<double>(l.channels * l.k * tokens);
  }
  const double about_us = std::max(bytes / 3e6, flops / 6e8);
  const int count = static_cast<int>(std::clamp(20000.0 / about_us, 2.0, 32.0));
  int64_t place = 0;
  const double us = bench.time(count, [&] {
    for (int i = 0; i < count; ++i) {
      for (const Linear& l : layer.linears) bench.run(bench.linear(l, tokens, DType::kBF16, place));
    }
  });
  fmt::print(
      R"({{"what": "layer", "layer": "{}", "m": {}, "dtype": "{}", "us": {:.2f}, "gb_s": {:.0f}, "tflop_s": {:.1f}}})"
      "\n",
      layer.name, tokens, formats.name, us, bytes / us * 1e-3, flops / us * 1e-6);
  std::fflush(stdout);
}

void print_read(Bench& bench) {
  fmt::print(R"({{"what": "read", "gpu": "{}", "gb_s": {:.0f}}})"
             "\n",
             gpu_properties(kGpu).name, bench.read_bandwidth());
}

void time_all(Bench& bench, bool quick) {
  for (const Formats& formats : {kF8, kBF16}) {
    bench.fill(formats);
    print_read(bench);
    for (const LayerShape& layer : kLayers) {
      for (const int64_t tokens : kSmallTokens) time_layer(bench, layer, tokens, formats);
      for (const Linear& l : layer.linears) {
        for (const int64_t tokens : kSmallTokens) time_linear(bench, layer.name, l, tokens, formats, DType::kBF16);
        if (quick) continue;
        for (const int64_t tokens : kLargeTokens) time_linear(bench, layer.name, l, tokens, formats, DType::kBF16);
      }
      if (quick) break;
    }
    for (const int64_t tokens : {1, 8, 16, 64}) {
      time_linear(bench, "8b", {"lm_head", 128256, 4096}, tokens, formats, DType::kF32);
    }
    if (quick) continue;
    for (const int64_t size : {4096, 8192})
      time_linear(bench, "square", {"square", size, size}, size, formats, DType::kBF16);
    print_read(bench);
  }
}

// What prefill takes.
void time_large(Bench& bench) {
  for (const Formats& formats : {kF8, kBF16}) {
    bench.fill(formats);
    for (const int64_t size : {4096, 8192}) {
      time_linear(bench, "square", {"square", size, size}, size, formats, DType::kBF16);
    }
    for (const Linear& l : kLayers[0].linears) {
      for (const int64_t tokens : {64, 128, 256, 512, 1024, 2048, 8192}) {
        time_linear(bench, kLayers[0].name, l, tokens, formats, DType::kBF16);
      }
    }
  }
}

// Where one row should give way to the next.
void time_rows(Bench& bench) {
  bench.fill(kF8);
  print_read(bench);
  for (const LayerShape& layer : kLayers) {
    for (const Linear& l : layer.linears) {
      for (const int64_t tokens : {8, 12, 16, 32, 64, 96, 128, 192}) {
        const int count = std::min(num_launches(bench, l, tokens, kF8), 40);
        int64_t place = 0;
        for (const Kernel<MatmulOp>& row : bench.rows(bench.linear(l, tokens, DType::kBF16, place))) {
          const double us = bench.time(count, [&] {
            for (int i = 0; i < count; ++i) bench.run(bench.linear(l, tokens, DType::kBF16, place), row);
          });
          print_linear(layer.name, l, tokens, kF8, us, row.name);
        }
      }
    }
  }
}

void time_formats(Bench& bench) {
  for (const Formats& formats : kAllFormats) {
    bench.fill(formats);
    print_read(bench);
    for (const int64_t tokens : {1, 8, 16, 32, 64, 128, 512, 2048, 8192}) {
      time_layer(bench, kLayers[0], tokens, formats);
      for (const Linear& l : kLayers[0].linears) time_linear(bench, "8b", l, tokens, formats, DType::kBF16);
    }
  }
}

// Every choice of the ring for every linear, in a loop over that linear and in its layer.
void tune(Bench& bench) {
  bench.fill(kF8);
  print_read(bench);
  for (const LayerShape& layer : kLayers) {
    for (const Linear& l : layer.linears) {
      for (const int64_t tokens : kSmallTokens) {
        const int count = std::min(num_launches(bench, l, tokens, kF8), 40);
        for (size_t i = 0; i < ring_configs().size(); ++i) {
          const RingConfig& config = ring_configs()[i];
          if (config.tokens < tokens || config.tokens > std::max<int64_t>(2 * tokens, 8)) continue;
          for (const int num_ctas : {128, 256}) {
            for (const int trigger : {4, 8}) {
              const RingPlan plan{static_cast<int>(i), num_ctas, trigger};
              int64_t place = 0;
              const double us = bench.time(count, [&] {
                for (int j = 0; j < count; ++j) bench.run(bench.linear(l, tokens, DType::kBF16, place), plan);
              });
              print_linear(layer.name, l, tokens, kF8, us,
                           fmt::format("t{} {}x{}s{} g{} trigger {}", config.tokens, config.row_groups, config.chunks,
                                       config.stages, num_ctas, trigger));
            }
          }
        }
      }
    }
  }
}

int main(const std::vector<std::string>& arguments) {
  const auto has = [&](const char* word) { return std::ranges::find(arguments, word) != arguments.end(); };
  Bench bench(int64_t{5} << 29);
  if (has("tune")) {
    tune(bench);
  } else if (has("rows")) {
    time_rows(bench);
  } else if (has("formats")) {
    time_formats(bench);
  } else if (has("large")) {
    time_large(bench);
  } else {
    time_all(bench, has("quick"));
  }
  return 0;
}

}  // namespace
}  // namespace octet::bench

int main(int argc, char** argv) {
  try {
    return octet::bench::main({argv + 1, argv + argc});
  } catch (const std::exception& e) {
    fmt::print("{}\n", e.what());
    return 1;
  }
}
