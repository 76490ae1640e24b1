// gpu_rows_bench: the GPU's kernels that work row by row, in the shapes of an 8B model (hidden size 4096, inner 14336,
// 32 query and 8 key/value heads of 128): time per launch in a graph of launches, as decode steps run them, and what
// they move as a share of what a copy moves in the same run.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "octet/device/graph.h"
#include "octet/device/stream.h"
#include "octet/kernels/backends.h"

namespace octet {
namespace {

constexpr int64_t kHidden = 4096, kInner = 14336, kHeads = 32, kKvHeads = 8, kDim = 128, kBlockSize = 16;
constexpr int kLaunches = 50;  // of one graph

class Gpu {
 public:
  explicit Gpu(Device device)
      : stream_(device),
        workspace_(device, 64 << 20, "workspace"),
        backend_(kernel_table(device),
                 Launch{.stream = stream_.get(),
                        .gpu = &gpu_properties(device),
                        .workspace = make_workspace(workspace_, stream_.get())},
                 DType::kBF16) {}

  Tensor make(DType dtype, Shape shape) {
    const int64_t num_bytes = std::max<int64_t>(64, shape.num_elements() * dtype_bytes(dtype));
    buffers_.emplace_back(stream_.get().device, num_bytes, "benchmark");
    return Tensor(buffers_.back().data(), dtype, shape);
  }
  // Uniform values within +-`magnitude`: f32 or bf16.
  Tensor random(DType dtype, Shape shape, float magnitude) {
    std::vector<std::byte> host(static_cast<size_t>(shape.num_elements() * dtype_bytes(dtype)));
    for (int64_t i = 0; i < shape.num_elements(); ++i) {
      seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
      const float value = magnitude * (static_cast<float>(seed_ >> 40) * 0x1p-23f - 1.0f);
      if (dtype == DType::kF32) reinterpret_cast<float*>(host.data())[i] = value;
      if (dtype == DType::kBF16) reinterpret_cast<BF16*>(host.data())[i] = to_bf16(value);
    }
    return upload(dtype, shape, host.data());
  }
  Tensor integers(Shape shape, const std::function<int64_t(int64_t)>& value) {
    std::vector<int32_t> host(static_cast<size_t>(shape.num_elements()));
    for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<int32_t>(value(static_cast<int64_t>(i)));
    return upload(DType::kI32, shape, host.data());
  }
  QuantTensor dynamic_output(int64_t rows, int64_t columns) {
    return {make(DType::kF8E4M3, {rows, columns}), make(DType::kF32, {rows}), kF8DynamicToken};
  }

  // Microseconds of one run of `work`, as the fastest of several graphs of many.
  double microseconds(const std::function<void()>& work) {
    const Graph graph = Graph::capture(stream_.get(), [&] {
      for (int i = 0; i < kLaunches; ++i) work();
    });
    double best = 1e12;
    for (int i = 0; i < 10; ++i) {
      Event start(stream_.get().device);
      Event stop(stream_.get().device);
      start.record(stream_.get());
      graph.replay(stream_.get());
      stop.record(stream_.get());
      stop.wait();
      best = std::min(best, 1e3 * stop.milliseconds_since(start) / kLaunches);
    }
    return best;
  }
  template <class Op>
  void time(std::string_view name, const Op& op, int64_t num_bytes) {
    report(name, op_rows(op), microseconds([&] { backend_(op); }), num_bytes);
  }
  void report(std::string_view name, int64_t rows, double microseconds, int64_t num_bytes) {
    const double gigabytes = static_cast<double>(num_bytes) * 1e-3 / microseconds;
    fmt::print("{:<34} {:>6} {:>9.2f} us {:>8.0f} GB/s {:>6.1f}% of copy\n", name, rows, microseconds, gigabytes,
               100.0 * gigabytes / copy_gigabytes_);
  }
  void time_copy() {
    const int64_t num_bytes = int64_t{256} << 20;
    const Tensor from = random(DType::kBF16, {num_bytes / 2}, 1.0f);
    const Tensor to = make(DType::kBF16, {num_bytes / 2});
    const double us = microseconds([&] { octet::copy(to, from, stream_.get()); });
    copy_gigabytes_ = 2.0 * static_cast<double>(num_bytes) * 1e-3 / us;
    report("copy of 256 MiB", 1, us, 2 * num_bytes);
  }
  void release() { buffers_.clear(); }

 private:
  Tensor upload(DType dtype, Shape shape, const void* host) {
    const Tensor tensor = make(dtype, shape);
    copy_bytes(tensor.bytes, host, tensor.num_bytes(), stream_.get());
    synchronize(stream_.get());
    return tensor;
  }
  template <class Op>
  static int64_t op_rows(const Op& op) {
    if constexpr (requires { op.out.data.dim(0); }) {
      return op.out.data.dim(0);
    } else if constexpr (requires { op.out.dim(0); }) {
      return op.out.dim(0);
    } else if constexpr (requires { op.q_out.dim(0); }) {
      return op.q_out.dim(0);
    } else {
      return op.positions.dim(0);
    }
  }

  StreamOwner stream_;
  Buffer workspace_;
  Backend backend_;
  std::vector<Buffer> buffers_;
  uint64_t seed_ = 1;
  double copy_gigabytes_ = 1.0;
};

void time_rows(Gpu& gpu, int64_t t) {
  const Tensor x = gpu.random(DType::kBF16, {t, kHidden}, 1.0f);
  const Tensor residual = gpu.random(DType::kBF16, {t, kHidden}, 1e-3f);
  const Tensor weight = gpu.random(DType::kF32, {kHidden}, 1.0f);
  gpu.time("rms_norm, adds, to f8 per token",
           RmsNormOp{.out = gpu.dynamic_output(t, kHidden), .x = x, .residual = residual, .weight = weight},
           t * kHidden * (2 + 2 + 2 + 1));
  gpu.time(
      "rms_norm, adds, to bf16",
      RmsNormOp{
          .out = QuantTensor(gpu.make(DType::kBF16, {t, kHidden})), .x = x, .residual = residual, .weight = weight},
      t * kHidden * (2 + 2 + 2 + 2));
  gpu.time("quantize per token", QuantizeOp{.out = gpu.dynamic_output(t, kHidden), .x = x}, t * kHidden * 3);
  const Tensor gate_up = gpu.random(DType::kBF16, {t, 2 * kInner}, 3.0f);
  gpu.time("silu_and_mul, to f8 per token", SiluAndMulOp{.out = gpu.dynamic_output(t, kInner), .x = gate_up},
           t * kInner * 5);
  gpu.time("silu_and_mul, to bf16", SiluAndMulOp{.out = QuantTensor(gpu.make(DType::kBF16, {t, kInner})), .x = gate_up},
           t * kInner * 6);
  const Tensor table = gpu.random(DType::kBF16, {4096, kHidden}, 1.0f);
  gpu.time("embedding",
           EmbeddingOp{.out = gpu.make(DType::kBF16, {t, kHidden}),
                       .table = table,
                       .token_ids = gpu.integers({t}, [](int64_t i) { return i * 2654435761 % 4096; })},
           t * kHidden * 4);
  gpu.release();
}

void time_rope(Gpu& gpu, int64_t t, DType cache) {
  const Tensor cos = gpu.make(DType::kF32, {t, kDim / 2});
  const Tensor sin = gpu.make(DType::kF32, {t, kDim / 2});
  gpu.time("rope_table",
           RopeTableOp{.cos = cos,
                       .sin = sin,
                       .positions = gpu.integers({t}, [](int64_t i) { return 7 * i; }),
                       .inv_freq = gpu.random(DType::kF32, {kDim / 2}, 1.0f)},
           t * kDim * 4);
  const Shape cache_shape{(t + kBlockSize - 1) / kBlockSize, kKvHeads, kBlockSize, kDim};
  RopeKvOp op;
  op.q_out = gpu.make(DType::kBF16, {t, kHeads * kDim});
  op.k_cache = gpu.make(cache, cache_shape);
  op.v_cache = gpu.make(cache, cache_shape);
  op.qkv = gpu.random(DType::kBF16, {t, (kHeads + 2 * kKvHeads) * kDim}, 2.0f);
  op.cos = cos;
  op.sin = sin;
  op.slot_mapping = gpu.integers({t}, [](int64_t i) { return i; });
  gpu.time(fmt::format("rope_kv, cache {}", dtype_name(cache)), op,
           t * kDim * ((2 * kHeads + 2 * kKvHeads) * 2 + 2 * kKvHeads * dtype_bytes(cache) + 4));
  gpu.release();
}

int bench() {
  const Device device = parse_device("cuda");
  fmt::print("{}\n", gpu_properties(device).name);
  Gpu gpu(device);
  gpu.time_copy();
  for (const int64_t t : {1, 8, 64, 512, 8192}) {
    time_rows(gpu, t);
    for (const DType cache : {DType::kBF16, DType::kF8E4M3}) time_rope(gpu, t, cache);
  }
  return 0;
}

}  // namespace
}  // namespace octet

int main() {
  try {
    return octet::bench();
  } catch (const octet::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
