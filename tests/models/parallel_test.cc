// Tensor parallelism: 2 and 4 ranks on threads give what 1 rank gives; FP8 weights and scales are the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "model_runner.h"

namespace octet {
namespace {

// Row norm as in golden_test.cc: sums over ranks are in another order than sums over columns.
constexpr double kTolerance = 1e-4;

struct ParallelCase {
  std::string variant;
  int world_size;
};

class Parallel : public testing::TestWithParam<ParallelCase> {};

// 4 ranks and 2 key-value heads: each is held by two ranks. Vocabularies of 131 are padded. qwen2: tied, biases;
// llama_mlp_bias and llama_attention_bias: biases of row-parallel linears are added once.
INSTANTIATE_TEST_SUITE_P(Variants, Parallel,
                         testing::Values(ParallelCase{"llama2", 2}, ParallelCase{"llama2", 4},
                                         ParallelCase{"llama3", 2}, ParallelCase{"llama3", 4}, ParallelCase{"qwen2", 4},
                                         ParallelCase{"qwen3", 2}, ParallelCase{"mistral", 2},
                                         ParallelCase{"llama_mlp_bias", 2}, ParallelCase{"llama_attention_bias", 4},
                                         ParallelCase{"mixtral", 2}, ParallelCase{"mixtral", 4},
                                         ParallelCase{"qwen2_moe", 2}, ParallelCase{"qwen3_moe", 4},
                                         ParallelCase{"deepseek_v2", 2}, ParallelCase{"deepseek_v3", 4}),
                         [](const auto& test) {
                           return test.param.variant + "_" + std::to_string(test.param.world_size);
                         });

TEST_P(Parallel, LogitsAndGreedyTokens) {
  const Recording golden(GetParam().variant, "golden.safetensors");
  const std::vector<int32_t> prompt = golden.integers("input_ids");
  on_ranks(GetParam().world_size, [&](int, Comm& comm) {
    ModelRunner runner(
        RunnerOptions{
            .folder = golden_folder(GetParam().variant), .kernels = KernelSelection::kFastest, .num_sequences = 2},
        &comm);
    EXPECT_LT(row_error(runner.step({Piece{1, prompt}}), golden.floats("logits"), runner.vocab_size()), kTolerance);
    EXPECT_EQ(runner.generate(prompt, 7, 64), golden.integers("greedy"));
    EXPECT_LE(runner.peak_bytes(), runner.model().activation_bytes(128, 128));
  });
}

TEST_P(Parallel, Fp8LogitsAreThoseOfOneRank) {
  const std::string folder = golden_folder(GetParam().variant);
  const std::vector<int32_t> prompt = Recording(GetParam().variant, "golden.safetensors").integers("input_ids");
  for (const std::string quantization : {"fp8", "fp8_tensor"}) {
    const RunnerOptions options{.folder = folder,
                                .quant = {.quantization = quantization},
                                .kernels = KernelSelection::kFastest,
                                .num_sequences = 10};
    ModelRunner one(options);
    const std::vector<float> expected = one.step(pieces_of(prompt, kFp8Piece));
    on_ranks(GetParam().world_size, [&](int, Comm& comm) {
      ModelRunner runner(options, &comm);
      expect_same_but_for_flips(runner.step(pieces_of(prompt, kFp8Piece)), expected, runner.vocab_size());
      EXPECT_LE(runner.peak_bytes(), runner.model().activation_bytes(128, 128));
    });
  }
}

// Ranks with whole experts, and not equally many: 6 experts on 4 ranks, 10 on 4, 5 on 2.
struct ExpertCase {
  std::string variant;
  int world_size;
};
class ExpertParallel : public testing::TestWithParam<ExpertCase> {};
INSTANTIATE_TEST_SUITE_P(Variants, ExpertParallel,
                         testing::Values(ExpertCase{"mixtral", 2}, ExpertCase{"mixtral", 4},
                                         ExpertCase{"mixtral_stacked", 2}, ExpertCase{"qwen2_moe", 4},
                                         ExpertCase{"qwen3_moe", 4}),
                         [](const auto& test) {
                           return test.param.variant + "_" + std::to_string(test.param.world_size);
                         });

TEST_P(ExpertParallel, LogitsAndGreedyTokens) {
  const Recording golden(GetParam().variant, "golden.safetensors");
  const std::vector<int32_t> prompt = golden.integers("input_ids");
  on_ranks(GetParam().world_size, [&](int, Comm& comm) {
    ModelRunner runner(RunnerOptions{.folder = golden_folder(GetParam().variant),
                                     .kernels = KernelSelection::kFastest,
                                     .num_sequences = 2,
                                     .expert_split = WeightSource::ExpertSplit::kExperts},
                       &comm);
    EXPECT_LT(row_error(runner.step({Piece{1, prompt}}), golden.floats("logits"), runner.vocab_size()), kTolerance);
    EXPECT_EQ(runner.generate(prompt, 7, 64), golden.integers("greedy"));
    EXPECT_LE(runner.peak_bytes(), runner.model().activation_bytes(128, 128));
  });
}

// Every expert is whole on one rank, so that its codes and scales are those of one rank.
TEST_P(ExpertParallel, Fp8LogitsAreThoseOfOneRank) {
  const std::vector<int32_t> prompt = Recording(GetParam().variant, "golden.safetensors").integers("input_ids");
  for (const std::string quantization : {"fp8", "fp8_tensor"}) {
    const RunnerOptions options{.folder = golden_folder(GetParam().variant),
                                .quant = {.quantization = quantization},
                                .kernels = KernelSelection::kFastest,
                                .num_sequences = 10,
                                .expert_split = WeightSource::ExpertSplit::kExperts};
    ModelRunner one(options);
    const std::vector<float> expected = one.step(pieces_of(prompt, kFp8Piece));
    on_ranks(GetParam().world_size, [&](int, Comm& comm) {
      ModelRunner runner(options, &comm);
      expect_same_but_for_flips(runner.step(pieces_of(prompt, kFp8Piece)), expected, runner.vocab_size());
    });
  }
}

std::vector<uint8_t> bytes_of(ConstTensor tensor) {
  std::vector<uint8_t> bytes(static_cast<size_t>(tensor.num_bytes()));
  std::memcpy(bytes.data(), tensor.bytes, bytes.size());
  return bytes;
}

// Rows of the whole that `part` must equal: [N, K] split along K, or along N.
std::vector<uint8_t> columns_of(ConstTensor whole, int64_t first, int64_t count) {
  std::vector<uint8_t> bytes;
  for (int64_t r = 0; r < whole.dim(0); ++r) {
    const auto* row = reinterpret_cast<const uint8_t*>(whole.bytes) + r * whole.row_stride + first;
    bytes.insert(bytes.end(), row, row + count);
  }
  return bytes;
}

TEST(ParallelWeights, Fp8CodesAndScalesAreThoseOfOneRank) {
  for (const std::string quantization : {"fp8", "fp8_tensor"}) {
    const RunnerOptions options{.folder = golden_folder("llama3"), .quant = {.quantization = quantization}};
    const ModelRunner one(options);
    on_ranks(2, [&](int rank, Comm& comm) {
      const ModelRunner half(options, &comm);
      const std::string layer = "model.layers.1.";
      for (const std::string name : {"self_attn.o_proj", "mlp.down_proj"}) {  // split along K
        const ConstTensor part = half.parameters().at(layer + name + ".weight");
        const ConstTensor whole = one.parameters().at(layer + name + ".weight");
        EXPECT_EQ(bytes_of(part), columns_of(whole, rank * part.dim(1), part.dim(1))) << name;
        EXPECT_EQ(bytes_of(half.parameters().at(layer + name + ".weight_scale")),
                  bytes_of(one.parameters().at(layer + name + ".weight_scale")))
            << name;
      }
      // gate and up, each split along N: [gate of this rank; up of this rank]
      const ConstTensor part = half.parameters().at(layer + "mlp.gate_proj.weight");
      const ConstTensor whole = one.parameters().at(layer + "mlp.gate_proj.weight");
      const ConstTensor scale = half.parameters().at(layer + "mlp.gate_proj.weight_scale");
      const ConstTensor whole_scale = one.parameters().at(layer + "mlp.gate_proj.weight_scale");
      const int64_t n = part.dim(0) / 2;
      for (int64_t matrix = 0; matrix < 2; ++matrix) {
        const int64_t first = (2 * matrix + rank) * n;
        EXPECT_EQ(bytes_of(part.rows(matrix * n, n)), bytes_of(whole.rows(first, n)));
        EXPECT_EQ(bytes_of(scale.rows(matrix * n, n)), bytes_of(whole_scale.rows(first, n)));
      }
    });
  }
}

// The real numbers that a linear's codes stand for, row after row.
std::vector<float> real_weight(const ModelRunner& runner, const std::string& module) {
  const std::vector<Model::LinearRow> rows = runner.model().linears();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.module == module; });
  OCTET_CHECK(row != rows.end());
  const Tensor data = runner.parameters().at(module + ".weight");
  const auto scale = runner.parameters().find(module + ".weight_scale");
  const QuantTensor weight(data, scale == runner.parameters().end() ? Tensor() : scale->second, row->weight);
  std::vector<float> real(static_cast<size_t>(data.num_elements()));
  ThreadPool threads(1);
  find_scheme("fp8_block")
      ->dequantize(weight, Tensor(reinterpret_cast<std::byte*>(real.data()), DType::kF32, data.shape), threads);
  return real;
}

// 64 columns on two ranks: a block's columns lie on both, its scale is of all of them.
TEST(ParallelWeights, BlocksThatRanksCutStandForTheSameNumbers) {
  const RunnerOptions options{.folder = golden_folder("llama2"), .quant = {.quantization = "fp8_block"}};
  const ModelRunner one(options);
  for (const int64_t layer : {0, 2}) {
    const std::string module = fmt::format("model.layers.{}.self_attn.o_proj", layer);
    const std::vector<float> whole = real_weight(one, module);
    on_ranks(2, [&](int rank, Comm& comm) {
      const ModelRunner half(options, &comm);
      const std::vector<float> part = real_weight(half, module);
      const int64_t n = one.parameters().at(module + ".weight").dim(0), k = static_cast<int64_t>(whole.size()) / n / 2;
      ASSERT_EQ(part.size(), static_cast<size_t>(n * k));
      for (int64_t row = 0; row < n; ++row) {
        for (int64_t column = 0; column < k; ++column) {
          ASSERT_EQ(part[static_cast<size_t>(row * k + column)],
                    whole[static_cast<size_t>(row * 2 * k + rank * k + column)])
              << module;
        }
      }
    });
  }
  const std::vector<int32_t> prompt = Recording("llama2", "golden.safetensors").integers("input_ids");
  RunnerOptions fast = options;
  fast.kernels = KernelSelection::kFastest;
  fast.num_sequences = 10;
  ModelRunner single(fast);
  const std::vector<float> expected = single.step(pieces_of(prompt, kFp8Piece));
  on_ranks(2, [&](int, Comm& comm) {
    ModelRunner runner(fast, &comm);
    EXPECT_LT(row_error(runner.step(pieces_of(prompt, kFp8Piece)), expected, runner.vocab_size()), 0.25);
  });
}

TEST(ParallelWeights, HeadsThatDoNotDivideAreAnError) {
  EXPECT_THROW(
      on_ranks(2,
               [&](int, Comm& comm) { ModelRunner runner(RunnerOptions{.folder = golden_folder("smollm2")}, &comm); }),
      Error);
}

}  // namespace
}  // namespace octet
