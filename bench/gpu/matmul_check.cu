// matmul_check [small | stress]: every matmul row of the GPU on every case that it takes, and every choice of the ring,
// against double sums: random values, poisoned outputs, guarded gaps between rows. Exit 1 and a line for each failure.
// "small" has only cases that compute-sanitizer gets through; "stress" repeats a few many times.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "bench/gpu/device_values.cuh"
#include "octet/kernels/backends.h"
#include "octet/kernels/hopper/matmul_ring.h"

namespace octet::bench {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};

struct Case {
  QuantFormat x, weight;
  DType out;
  int64_t tokens, channels, k;
  bool bias, strided;
};

// The arguments of one case in device memory.
class Problem {
 public:
  explicit Problem(const Case& c) : case_(c), stride_(c.channels + (c.strided ? 8 : 0)) {
    op_.x = input(c.x, c.tokens, c.k, 1);
    op_.weight = input(c.weight, c.channels, c.k, 2);
    if (c.bias) op_.bias = plain(DType::kF32, Shape{c.channels}, 3, 1.0f, false);
    op_.out = Tensor(memory(out_bytes()), c.out, Shape{c.tokens, c.channels});
    op_.out.row_stride = stride_;
    op_.check();
    expected_.resize(static_cast<size_t>(c.tokens * c.channels));
    std::byte* device = memory(c.tokens * c.channels * 4);
    compute_expected(reinterpret_cast<float*>(device), op_);
    copy_bytes(expected_.data(), device, c.tokens * c.channels * 4, Stream{kGpu, nullptr});
  }
  const MatmulOp& op() const { return op_; }
  void poison() { fill_bytes(op_.out.bytes, std::byte{0xff}, out_bytes(), Stream{kGpu, nullptr}); }

  // Relative error in the norm; infinite when an output or a gap is not as it must be.
  double error() const {
    std::vector<std::byte> found(static_cast<size_t>(out_bytes()));
    copy_bytes(found.data(), op_.out.bytes, out_bytes(), Stream{kGpu, nullptr});
    check_cuda(cudaDeviceSynchronize(), "the kernel");
    double difference = 0.0, norm = 0.0, worst = 0.0;
    std::string worst_place;
    for (int64_t t = 0; t < case_.tokens; ++t) {
      for (int64_t n = 0; n < stride_; ++n) {
        const float value = at(found, t * stride_ + n);
        if (n >= case_.channels) {
          if (!std::isnan(value)) return INFINITY;  // a gap was written
          continue;
        }
        const double expected = expected_[static_cast<size_t>(t * case_.channels + n)];
        const double d = value - expected;
        if (std::isnan(d)) {
          fmt::print("token {}, channel {}: {}, not {}\n", t, n, value, expected);
          return INFINITY;
        }
        difference += d * d;
        norm += expected * expected;
        if (std::fabs(d) > worst) {
          worst = std::fabs(d);
          worst_place = fmt::format("token {}, channel {}: {}, not {}", t, n, value, expected);
        }
      }
    }
    const double rms = std::sqrt(norm / static_cast<double>(expected_.size()));
    // One wrong output among a million hides in the norm.
    if (worst > 0.05 * rms + 1e-30) {
      int num_wrong = 0;
      for (int64_t i = 0; i < case_.tokens * case_.channels; ++i) {
        const double d =
            at(found, i / case_.channels * stride_ + i % case_.channels) - expected_[static_cast<size_t>(i)];
        num_wrong += std::fabs(d) > 0.05 * rms ? 1 : 0;
      }
      fmt::print("{} wrong outputs; {}\n", num_wrong, worst_place);
      return INFINITY;
    }
    return std::sqrt(difference / std::max(norm, 1e-30));
  }

 private:
  std::byte* memory(int64_t num_bytes) {
    buffers_.emplace_back(kGpu, std::max<int64_t>(num_bytes, 256), "check");
    return buffers_.back().data();
  }
  ConstTensor plain(DType dtype, Shape shape, uint64_t seed, float scale, bool positive) {
    std::byte* bytes = memory(shape.num_elements() * dtype_bytes(dtype));
    fill_random(bytes, dtype, shape.num_elements(), seed + static_cast<uint64_t>(case_.k * 7 + case_.tokens), scale,
                positive);
    return ConstTensor(bytes, dtype, shape);
  }
  ConstQuantTensor input(const QuantFormat& format, int64_t rows, int64_t columns, uint64_t seed) {
    const ConstTensor data = plain(format.dtype, Shape{rows, columns}, seed, natural_scale(format.dtype), false);
    if (!format.quantized()) return ConstQuantTensor(data);
    return {data, plain(DType::kF32, format.scale_shape(rows, columns), seed + 10, 0.01f, true), format};
  }
  int64_t out_bytes() const { return case_.tokens * stride_ * dtype_bytes(case_.out); }
  float at(const std::vector<std::byte>& bytes, int64_t i) const {
    if (case_.out == DType::kF32) return reinterpret_cast<const float*>(bytes.data())[i];
    return to_f32(reinterpret_cast<const BF16*>(bytes.data())[i]);
  }

  Case case_;
  int64_t stride_;
  std::vector<Buffer> buffers_;
  MatmulOp op_;
  std::vector<float> expected_;
};

// What rounding explains: BF16's own is 1.7e-3 in the norm, F32 sums on tensor cores, which
// cut bits off, 2e-5 for a long K, E4M3 ones on Hopper's FP8 unit 2e-4.
double bound_of(std::string_view kernel, const Case& c) {
  const bool f8_unit = c.x.dtype == DType::kF8E4M3 && kernel.starts_with("hopper.");
  return (c.out == DType::kBF16 ? 1.9e-3 : 0.0) + (f8_unit ? 4e-4 : 3e-5);
}

class Check {
 public:
  explicit Check(bool small) : small_(small) {
    launch_.stream = stream_.get();
    launch_.gpu = &gpu_properties(kGpu);
  }

  void run(const Case& c) {
    Problem problem(c);
    for (const Kernel<MatmulOp>& kernel : kernel_table(kGpu).of<MatmulOp>()) {
      if (!kernel.declines(problem.op(), launch_).empty()) continue;
      judge(kernel.name, kernel.name, c, problem, [&] { kernel.run(problem.op(), launch_); });
      if (kernel.name.ends_with("_ring")) run_ring_choices(kernel.name, c, problem);
    }
  }
  int num_failed() const { return failed_; }
  void report() const {
    for (const auto& [kernel, worst] : worst_) fmt::print("{:28} worst error {:.3e}\n", kernel, worst);
    fmt::print("{} runs, {} failed\n", runs_, failed_);
  }

 private:
  void run_ring_choices(std::string_view kernel, const Case& c, Problem& problem) {
    for (size_t i = 0; i < ring_configs().size(); ++i) {
      if (!takes_ring_config(problem.op(), static_cast<int>(i))) continue;
      for (const int num_ctas : {128, 256}) {
        for (const int trigger : {0, 8, 1000}) {
          if (small_ && trigger != 8) continue;
          const RingPlan plan{static_cast<int>(i), num_ctas, trigger};
          if (num_ctas > c.channels / 16) continue;
          judge(kernel, fmt::format("{} config {} on {} CTAs, trigger {}", kernel, i, num_ctas, trigger), c, problem,
                [&] { run_ring(problem.op(), launch_, plan); });
        }
      }
    }
  }

  template <class Run>
  void judge(std::string_view kernel, std::string_view what, const Case& c, Problem& problem, Run&& run_kernel) {
    ++runs_;
    problem.poison();
    check_cuda(cudaDeviceSynchronize(), "poison");
    for (int repeat = 0; repeat < 2; ++repeat) run_kernel();  // the second starts beside the first
    synchronize(launch_.stream);
    const double error = problem.error();
    if (std::isfinite(error)) worst(kernel, c) = std::max(worst(kernel, c), error);
    if (error <= bound_of(kernel, c)) return;
    ++failed_;
    fmt::print("FAILED {}: {} x {} to {}, {} x {} x {}{}{}: error {:.3e}, at most {:.1e}\n", what, c.x.to_string(),
               c.weight.to_string(), dtype_name(c.out), c.tokens, c.channels, c.k, c.bias ? ", bias" : "",
               c.strided ? ", strided" : "", error, bound_of(kernel, c));
  }
  double& worst(std::string_view kernel, const Case& c) {
    const std::string name = fmt::format("{} to {}", kernel, dtype_name(c.out));
    for (auto& [known, error] : worst_) {
      if (known == name) return error;
    }
    return worst_.emplace_back(name, 0.0).second;
  }

  bool small_;
  StreamOwner stream_{kGpu};
  Launch launch_;
  int runs_ = 0;
  int failed_ = 0;
  std::vector<std::pair<std::string, double>> worst_;
};

// Blocks of a single row.
constexpr QuantFormat kF8Group{.dtype = DType::kF8E4M3, .granularity = Granularity::kGroup, .group_cols = 128};

std::vector<Case> make_cases(bool small) {
  const QuantFormat bf16 = plain_format(DType::kBF16);
  const QuantFormat f32 = plain_format(DType::kF32);
  std::vector<Case> cases;
  for (const QuantFormat& x : {f32, bf16, kF8DynamicToken, kF8StaticTensor}) {
    for (const QuantFormat& weight : {f32, bf16, plain_format(DType::kF16), kF8Tensor, kF8Channel}) {
      cases.push_back({x, weight, DType::kF32, 5, 37, 75, true, true});
      cases.push_back({x, weight, DType::kBF16, 33, 130, 64, false, true});
    }
  }
  const std::vector<std::array<int64_t, 2>> shapes =
      small ? std::vector<std::array<int64_t, 2>>{{960, 576}, {136, 1040}}
            : std::vector<std::array<int64_t, 2>>{{576, 576},  {960, 576},   {3072, 576},   {576, 1536},  {1000, 2064},
                                                  {136, 1040}, {6144, 4096}, {4096, 14336}, {28672, 4096}};
  const std::vector<int64_t> tokens = small ? std::vector<int64_t>{1, 5, 16, 70}
                                            : std::vector<int64_t>{1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 130, 300};
  bool odd = false;
  for (const auto& [channels, k] : shapes) {
    for (const int64_t t : tokens) {
      odd = !odd;
      cases.push_back({kF8DynamicToken, kF8Channel, DType::kBF16, t, channels, k, odd, true});
      cases.push_back({kF8StaticTensor, kF8Tensor, DType::kF32, t, channels, k, !odd, false});
      cases.push_back({bf16, bf16, odd ? DType::kBF16 : DType::kF32, t, channels, k, odd, !odd});
      cases.push_back({kF8DynamicGroup, kF8Block, odd ? DType::kBF16 : DType::kF32, t, channels, k, odd, odd});
      // In F32 where outputs are so few that their rounding to BF16 has no norm to speak of.
      cases.push_back({kF8DynamicGroup, kF8Group, t == 1 ? DType::kF32 : DType::kBF16, t, channels, k, !odd, odd});
      cases.push_back({kI8DynamicToken, kI8Channel, odd ? DType::kF32 : DType::kBF16, t, channels, k, odd, !odd});
    }
  }
  return cases;
}

std::vector<Case> stress_cases() {
  const QuantFormat bf16 = plain_format(DType::kBF16);
  std::vector<Case> cases;
  for (int repeat = 0; repeat < 12; ++repeat) {
    for (const int64_t t : {1, 8, 9, 16, 33, 128, 600}) {
      cases.push_back({bf16, bf16, DType::kBF16, t, 28672, 4096, true, false});
      for (const int64_t k : {4096, 14336}) {
        cases.push_back({kF8DynamicToken, kF8Channel, DType::kBF16, t, 4096, k, repeat % 2 == 0, false});
      }
    }
  }
  return cases;
}

int main(std::string_view mode) {
  Check check(mode == "small");
  for (const Case& c : mode == "stress" ? stress_cases() : make_cases(mode == "small")) check.run(c);
  check.report();
  return check.num_failed() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace octet::bench

int main(int argc, char** argv) {
  try {
    return octet::bench::main(argc > 1 ? argv[1] : "");
  } catch (const std::exception& e) {
    fmt::print("{}\n", e.what());
    return 1;
  }
}
