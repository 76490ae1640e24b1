// Checkpoints that llm-compressor and ModelOpt wrote (scripts/record_quantised.py): the real numbers that their weights
// stand for, bit for bit, and the logits that torch computes of the files' tensors with activations rounded as they
// say.
#include <gtest/gtest.h>

#include <cstring>

#include "model_runner.h"
#include "octet/base/file.h"
#include "octet/checkpoint/weights_for_test.h"
#include "octet/quant/schemes.h"

namespace octet {
namespace {

struct Recorded {
  std::string name;
  std::string scheme;  // of o_proj, on disk
  QuantFormat activation;
};

QuantFormat asymmetric(QuantFormat format) {
  format.zero_point = true;
  return format;
}

const Recorded kRecorded[] = {
    {"ct_fp8_kv", "fp8_tensor", kF8StaticTensor},
    {"ct_fp8_kv_heads", "fp8_channel", kF8DynamicToken},
    {"ct_fp8_dynamic", "fp8_channel", kF8DynamicToken},
    {"ct_fp8_block", "fp8_block", kF8DynamicGroup},
    {"ct_fp8_weights", "fp8_channel", plain_format(DType::kF32)},
    {"ct_fp8_skip_qkv", "fp8_tensor", kF8StaticTensor},
    {"ct_int8_dynamic", "int8_channel", kI8DynamicToken},
    {"ct_int8_gptq", "int8_channel", kI8DynamicToken},
    {"ct_int8_dynamic_asymmetric", "int8_channel", asymmetric(kI8DynamicToken)},
    {"ct_int8_static", "int8_tensor", kI8StaticTensor},
    {"ct_int8_static_asymmetric", "int8_channel", asymmetric(kI8StaticTensor)},
    {"modelopt_fp8_kv", "fp8_tensor", kF8StaticTensor},
    {"modelopt_fp8_channel", "fp8_channel", kF8DynamicToken},
    {"modelopt_fp8_block", "fp8_block", kF8DynamicGroup},
};

class RecordedCheckpoint : public testing::TestWithParam<Recorded> {
 protected:
  const std::string variant_ = "../checkpoints/" + GetParam().name;  // beside the models'
  const std::string folder_ = golden_checkpoint(GetParam().name);
};
INSTANTIATE_TEST_SUITE_P(Packages, RecordedCheckpoint, testing::ValuesIn(kRecorded),
                         [](const auto& test) { return test.param.name; });

// FNV-1a of the numbers' bytes.
std::string checksum(const std::vector<float>& values) {
  uint64_t digest = 0xcbf29ce484222325u;
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(float); ++i) digest = (digest ^ bytes[i]) * 0x100000001b3u;
  return fmt::format("{:016x}", digest);
}

TEST_P(RecordedCheckpoint, WeightsAreWhatTheProducerMeant) {
  const ModelConfig config = ModelConfig::from_folder(folder_);
  ASSERT_NE(config.quantization_config(), nullptr);
  Loader loader(folder_, {.quantization_config = config.quantization_config()->dump()});
  const SafetensorsFolder files(folder_);
  const Json golden = read_json_file(folder_ + "/golden.json");
  EXPECT_EQ(golden.at("dequantised").size(), GetParam().name == "ct_fp8_skip_qkv" ? 4u : 7u);
  ThreadPool threads(1);
  for (const auto& [module, expected] : golden.at("dequantised").items()) {
    const Shape shape = files.find(module + ".weight")->shape;
    const LoadedLinear linear = loader.root().linear({.parts = {whole(module, shape[0])}, .k = shape[1]});
    EXPECT_TRUE(linear.weight.format.quantized());
    EXPECT_EQ(linear.activation, GetParam().activation);
    std::vector<float> real(static_cast<size_t>(shape.num_elements()));
    const Tensor out(reinterpret_cast<std::byte*>(real.data()), DType::kF32, shape);
    fp8_channel_scheme().dequantize(linear.weight, out, threads);
    EXPECT_EQ(checksum(real), expected.get<std::string>()) << module;
  }
}

TEST_P(RecordedCheckpoint, LogitsAreWhatTheProducerMeant) {
  const Recording golden(variant_, "golden.safetensors");
  for (const KernelSelection kernels : {KernelSelection::kReferenceOnly, KernelSelection::kFastest}) {
    ModelRunner runner(RunnerOptions{.folder = folder_, .kernels = kernels, .num_sequences = 10});
    const ModelConfig& config = runner.config();
    const QuantConfig quant(config.quantization_config(), {}, DType::kF32);
    EXPECT_EQ(quant.scheme_for("model.layers.0.self_attn.o_proj").on_disk->name(), GetParam().scheme);
    const std::vector<float> logits = runner.step(pieces_of(golden.integers("input_ids"), kFp8Piece));
    expect_same_but_for_flips(logits, golden.floats("logits"), runner.vocab_size());
    // The package's own, where they are of this arithmetic and of a KV cache in real numbers.
    if (golden.json().contains("package_logits") && GetParam().name.find("kv") == std::string::npos)
      expect_same_but_for_flips(logits, golden.floats("package_logits"), runner.vocab_size());
  }
}

// Held as real numbers, as where no kernel takes a format: weights alone are rounded.
TEST_P(RecordedCheckpoint, RealNumbersGiveNearlyTheSameLogits) {
  const Recording golden(variant_, "golden.safetensors");
  ModelRunner runner(RunnerOptions{.folder = folder_, .num_sequences = 10, .only_plain_runs_fast = true});
  for (const Model::LinearRow& row : runner.model().linears()) EXPECT_FALSE(row.weight.quantized()) << row.module;
  const std::vector<float> logits = runner.step(pieces_of(golden.integers("input_ids"), kFp8Piece));
  const double error = row_error(logits, golden.floats("logits"), runner.vocab_size());
  EXPECT_LT(error, GetParam().activation.quantized() ? 0.25 : 1e-4);
}

}  // namespace
}  // namespace octet
