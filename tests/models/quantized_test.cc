// Checkpoints that the quantiser writes, run: the logits are those of the source quantised while loading.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "model_runner.h"
#include "octet/quantizer/quantize.h"

namespace octet {
namespace {

struct Case {
  std::string variant, scheme, dialect, online;  // online: what has the same scales
};

class Quantized : public testing::TestWithParam<Case> {
 protected:
  Quantized() : folder_(std::filesystem::path(testing::TempDir()) / ("octet_quantized_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(folder_);
  }
  ~Quantized() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_P(Quantized, HasTheLogitsOfQuantisingWhileLoading) {
  const Case& c = GetParam();
  const std::string source = golden_folder(c.variant);
  quantize_checkpoint({.model_folder = source,
                       .out_folder = folder_.string(),
                       .scheme = c.scheme,
                       .dialect = c.dialect,
                       .num_threads = 2});
  ModelRunner stored(RunnerOptions{.folder = folder_.string(), .kernels = KernelSelection::kFastest});
  ModelRunner online(
      RunnerOptions{.folder = source, .quant = {.quantization = c.online}, .kernels = KernelSelection::kFastest});
  const std::vector<int32_t> prompt = Recording(c.variant, "golden.safetensors").integers("input_ids");
  EXPECT_EQ(stored.step({Piece{0, prompt}}), online.step({Piece{0, prompt}}));
}

INSTANTIATE_TEST_SUITE_P(Schemes, Quantized,
                         testing::Values(Case{"llama3", "fp8_channel", "", "fp8_channel"},
                                         Case{"qwen2", "fp8_channel", "", "fp8_channel"},
                                         Case{"qwen3", "fp8_block", "", "fp8_block"},
                                         Case{"llama3", "fp8_block", "compressed-tensors", "fp8_block"},
                                         Case{"llama3", "int8", "", "int8"}, Case{"qwen2", "int8", "", "int8"}));

}  // namespace
}  // namespace octet
