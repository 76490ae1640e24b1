// experts_bench: times the GPU's rows for a mixture of experts in the shapes of published models and writes one JSON
// object per line: each op of a layer's mixture, and all of them one behind the other as a step has them.
//
// Times are those of CUDA graphs, replayed: the median of several. Routing is random and differs from launch to launch;
// "hit" is how many experts have tokens in the mean, "gbps" the bytes of their weights by the time.
#include <array>
#include <vector>

#include "bench/gpu/device_values.cuh"
#include "bench/gpu/replay_time.h"
#include "octet/kernels/backends.h"

namespace octet::bench {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int kRoutings = 8;

struct Mixture {
  const char* name;
  int64_t experts, slots, hidden, intermediate;
};
constexpr Mixture kMixtures[] = {
    {"mixtral-8x7b", 8, 2, 4096, 14336},
    {"qwen3-30b-a3b", 128, 8, 2048, 768},
};
constexpr int64_t kTokens[] = {1, 8, 32, 128, 256, 512, 2048, 4096};
constexpr int64_t kMaxTokens = 4096;

struct Formats {
  const char* name;
  QuantFormat x, weight;
};
constexpr Formats kFormats[] = {
    {"f8_e4m3", kF8DynamicToken, kF8Channel},
    {"f8_e4m3 blocks", kF8DynamicGroup, kF8Block},
    {"bf16", plain_format(DType::kBF16), plain_format(DType::kBF16)},
};

// Device memory that is handed out once.
class Memory {
 public:
  explicit Memory(int64_t bytes) : buffer_(kGpu, bytes, "bench") {}
  Tensor make(DType dtype, Shape shape) {
    const Tensor tensor(buffer_.data() + used_, dtype, shape);
    used_ += (tensor.num_bytes() + 255) / 256 * 256;
    OCTET_CHECK(used_ <= buffer_.num_bytes());
    return tensor;
  }
  Tensor random(DType dtype, Shape shape, float scale, bool positive = false) {
    const Tensor tensor = make(dtype, shape);
    fill_random(tensor.bytes, dtype, tensor.num_elements(), static_cast<uint64_t>(used_), scale, positive);
    return tensor;
  }
  QuantTensor quantised(const QuantFormat& format, int64_t rows, int64_t columns) {
    QuantTensor matrix(random(format.dtype, Shape{rows, columns}, natural_scale(format.dtype)), {}, format);
    if (format.quantized()) matrix.scale = random(DType::kF32, format.scale_shape(rows, columns), 0.01f, true);
    return matrix;
  }
  ConstQuantTensor stack(const QuantFormat& format, int64_t experts, int64_t n, int64_t k) {
    ConstQuantTensor matrix(random(format.dtype, Shape{experts, n, k}, natural_scale(format.dtype)), {}, format);
    if (format.quantized()) matrix.scale = random(DType::kF32, format.stack_scale_shape(experts, n, k), 0.01f, true);
    return matrix;
  }

 private:
  Buffer buffer_;
  int64_t used_ = 0;
};

// The ops of a layer's mixture for some tokens.
struct Layer {
  std::vector<RouteExpertsOp> routes;  // of which each has a plan of its own
  ExpertPermuteOp permute;
  ExpertMatmulOp gate_up, down;
  ExpertSiluAndMulOp silu;
  CombineExpertsOp combine;

  void set_plan(const RouteExpertsOp& route) {
    permute.plan = gate_up.plan = silu.plan = down.plan = route.plan;
    combine.rows = route.plan.rows;
    combine.weights = route.weights;
  }
};

Layer make_layer(Memory& m, const Mixture& mixture, const Formats& formats, int64_t t, const ConstQuantTensor& gate_up,
                 const ConstQuantTensor& down) {
  const int64_t rows = t * mixture.slots, h = mixture.hidden, i = mixture.intermediate;
  const auto integers = [&](Shape shape) { return m.make(DType::kI32, shape); };
  Layer layer;
  for (int r = 0; r < kRoutings; ++r) {
    layer.routes.push_back({.expert_ids = integers({t, mixture.slots}),
                            .weights = m.make(DType::kF32, Shape{t, mixture.slots}),
                            .plan = {integers({mixture.experts + 1}), integers({rows}), integers({t, mixture.slots})},
                            .x = m.random(DType::kF32, Shape{t, mixture.experts}, 1.0f),
                            .correction = {},
                            .routing = {.weights = ExpertRouting::Weights::kRenormalised}});
  }
  const QuantTensor x = m.quantised(formats.x, rows, h), inner = m.quantised(formats.x, rows, i);
  const Tensor wide = m.random(DType::kBF16, Shape{rows, 2 * i}, 1.0f),
               y = m.random(DType::kBF16, Shape{rows, h}, 1.0f);
  layer.permute = {.out = x, .x = m.random(DType::kBF16, Shape{t, h}, 1.0f), .plan = {}};
  layer.gate_up = {.out = wide, .x = x, .weight = gate_up, .plan = {}};
  layer.silu = {.out = inner, .x = wide, .plan = {}};
  layer.down = {.out = y, .x = inner, .weight = down, .plan = {}};
  layer.combine = {
      .out = m.make(DType::kBF16, Shape{t, h}), .y = y, .weights = {}, .rows = {}, .shared = {}, .shared_gate = {}};
  return layer;
}

// Experts that have tokens, in the mean of the routings.
double experts_hit(const Layer& layer, Stream stream) {
  int64_t hit = 0;
  for (const RouteExpertsOp& route : layer.routes) {
    std::vector<int32_t> offsets(static_cast<size_t>(route.plan.num_experts()) + 1);
    copy_bytes(offsets.data(), route.plan.offsets.bytes, route.plan.offsets.num_bytes(), stream);
    synchronize(stream);
    for (size_t e = 0; e + 1 < offsets.size(); ++e) hit += offsets[e] < offsets[e + 1] ? 1 : 0;
  }
  return static_cast<double>(hit) / kRoutings;
}

class Bench {
 public:
  Bench() {
    launch_.stream = stream_.get();
    launch_.gpu = &gpu_properties(kGpu);
  }
  void run(const Mixture& mixture, const Formats& formats) {
    const int64_t rows = kMaxTokens * mixture.slots;
    const int64_t weights =
        3 * mixture.experts * mixture.hidden * mixture.intermediate * dtype_bytes(formats.weight.dtype);
    Memory stacks(weights + weights / 16 + (64 << 20));
    const ConstQuantTensor gate_up =
        stacks.stack(formats.weight, mixture.experts, 2 * mixture.intermediate, mixture.hidden);
    const ConstQuantTensor down = stacks.stack(formats.weight, mixture.experts, mixture.hidden, mixture.intermediate);
    for (const int64_t t : kTokens) {
      Memory m(rows * (mixture.hidden * 6 + mixture.intermediate * 8) + (int64_t{256} << 20));
      measure(mixture, formats, t, make_layer(m, mixture, formats, t, gate_up, down));
    }
  }

 private:
  template <class Each>
  double time(Layer& layer, Each&& each) {
    return replay_time(launch_.stream, kRoutings, [&] {
      for (const RouteExpertsOp& route : layer.routes) {
        layer.set_plan(route);
        each(route);
      }
    });
  }

  void measure(const Mixture& mixture, const Formats& formats, int64_t t, Layer layer) {
    const Backend backend(kernel_table(kGpu), launch_, DType::kBF16);
    for (const RouteExpertsOp& route : layer.routes) backend(route);
    const double hit = experts_hit(layer, launch_.stream);
    const auto report = [&](std::string_view what, std::string_view kernel, double us, double bytes, double flops) {
      fmt::print(
          R"({{"mixture": "{}", "formats": "{}", "m": {}, "what": "{}", "kernel": "{}", "us": {:.2f}, "hit": {:.1f}, "gbps": {:.0f}, "tflops": {:.0f}}})"
          "\n",
          mixture.name, formats.name, t, what, kernel, us, hit, bytes / us * 1e-3, flops / us * 1e-6);
    };
    const auto matmul = [&](std::string_view what, ExpertMatmulOp& op) {
      layer.set_plan(layer.routes[0]);
      const auto matrix = static_cast<double>(op.weight.data.dim(1) * op.weight.data.dim(2));
      const double us = time(layer, [&](const RouteExpertsOp&) { backend(op); });
      report(what, backend.choose(op).chosen, us, hit * matrix * static_cast<double>(dtype_bytes(formats.weight.dtype)),
             2.0 * matrix * static_cast<double>(t * mixture.slots));
    };
    report("route", "", time(layer, [&](const RouteExpertsOp& route) { backend(route); }), 0, 0);
    report("permute", "", time(layer, [&](const RouteExpertsOp&) { backend(layer.permute); }), 0, 0);
    matmul("gate_up", layer.gate_up);
    report("silu", "", time(layer, [&](const RouteExpertsOp&) { backend(layer.silu); }), 0, 0);
    matmul("down", layer.down);
    report("combine", "", time(layer, [&](const RouteExpertsOp&) { backend(layer.combine); }), 0, 0);
    const auto matrices = static_cast<double>(3 * mixture.hidden * mixture.intermediate);
    layer.gate_up.follows_plan = layer.down.follows_plan = true;
    const double us = time(layer, [&](const RouteExpertsOp& route) {
      backend(route);
      backend(layer.permute);
      backend(layer.gate_up);
      backend(layer.silu);
      backend(layer.down);
      backend(layer.combine);
    });
    report("mixture", "", us, hit * matrices * static_cast<double>(dtype_bytes(formats.weight.dtype)),
           2.0 * matrices * static_cast<double>(t * mixture.slots));
    std::fflush(stdout);
  }

  StreamOwner stream_{kGpu};
  Launch launch_;
};

}  // namespace
}  // namespace octet::bench

int main() {
  octet::make_current(octet::bench::kGpu);
  octet::bench::Bench bench;
  for (const octet::bench::Mixture& mixture : octet::bench::kMixtures) {
    for (const octet::bench::Formats& formats : octet::bench::kFormats) bench.run(mixture, formats);
  }
}
