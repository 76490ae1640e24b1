// Calibration of latent attention: every projection sees the text, kv_b_proj too, which octet never runs as a linear.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "model_runner.h"
#include "octet/checkpoint/test_folder.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/calibration_text.h"
#include "octet/quantizer/quantize.h"

namespace octet {
namespace {

std::vector<float> row_of(ConstTensor matrix, int64_t row) {
  if (matrix.rank() == 1) matrix = ConstTensor(matrix.bytes, matrix.dtype, Shape{1, matrix.num_elements()});
  std::vector<float> values(static_cast<size_t>(matrix.dim(1)));
  read_weight_row(matrix, row, values);
  return values;
}

class CalibratedLatentAttention : public testing::TestWithParam<std::string> {
 protected:
  CalibratedLatentAttention() {
    uint32_t state = 5;
    for (std::vector<int32_t>& ids : tokens_) {
      for (int i = 0; i < 24; ++i) {
        state = state * 1664525u + 1013904223u;
        ids.push_back(static_cast<int32_t>((state >> 8) % 131));
      }
    }
  }

  std::string model() const { return golden_folder(GetParam()); }
  std::string out() const { return folder_ / "out"; }

  // The largest magnitude of the normalised latents of each attention over the samples, worked out from what its
  // projections read; by the attention's name.
  std::map<std::string, double> largest_latents(const SafetensorsFolder& files) const {
    std::map<std::string, double> largest;
    ModelRunner runner(RunnerOptions{.folder = model(), .kernels = KernelSelection::kFastest, .num_sequences = 8});
    runner.observe_input = [&](std::string_view linear, ConstTensor x) {
      const size_t at = linear.find(".{");
      if (at == std::string_view::npos || linear.find("kv_a_proj_with_mqa") == std::string_view::npos) return;
      const std::string attention(linear.substr(0, at));
      for (int64_t t = 0; t < x.dim(0); ++t)
        largest[attention] = std::max(largest[attention], largest_latent(files, attention, x.row<float>(t)));
    };
    const CalibrationText text = divide_samples({tokens_.begin(), tokens_.end()}, 8);
    for (int i = 0; i < 8; ++i) runner.step({Piece{i, text.samples[static_cast<size_t>(i)]}});
    return largest;
  }

  static double largest_latent(const SafetensorsFolder& files, const std::string& attention, const float* x) {
    const ConstTensor kv_a = files.tensor(attention + ".kv_a_proj_with_mqa.weight");
    const std::vector<float> norm = row_of(files.tensor(attention + ".kv_a_layernorm.weight"), 0);
    std::vector<double> latent(norm.size());
    double squares = 0.0;
    for (size_t i = 0; i < latent.size(); ++i) {
      const std::vector<float> row = row_of(kv_a, static_cast<int64_t>(i));
      for (size_t k = 0; k < row.size(); ++k) latent[i] += static_cast<double>(row[k]) * static_cast<double>(x[k]);
      squares += latent[i] * latent[i];
    }
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(latent.size()) + 1e-6);
    double largest = 0.0;
    for (size_t i = 0; i < latent.size(); ++i)
      largest = std::max(largest, std::abs(latent[i] * factor * static_cast<double>(norm[i])));
    return largest;
  }

  static const CalibratedFigures& figures_of(const QuantizeReport& report, const std::string& module) {
    const auto it = std::find_if(report.linears.begin(), report.linears.end(),
                                 [&](const LinearFigures& figures) { return figures.module == module; });
    if (it == report.linears.end()) throw std::runtime_error("no figures of " + module);
    return it->calibrated.value();
  }

  std::array<std::vector<int32_t>, 9> tokens_;
  TestFolder folder_;
};

TEST_P(CalibratedLatentAttention, EveryProjectionSeesTheText) {
  const QuantizeReport report = quantize_checkpoint({.model_folder = model(),
                                                     .out_folder = out(),
                                                     .scheme = "fp8",
                                                     .activation_scheme = "static",
                                                     .calibration_tokens = {tokens_.begin(), tokens_.end()},
                                                     .num_samples = 8,
                                                     .num_threads = 2});
  const SafetensorsFolder files(model());
  const std::map<std::string, double> latents = largest_latents(files);
  ASSERT_FALSE(latents.empty());
  for (const auto& [attention, largest] : latents) {
    EXPECT_NEAR(static_cast<double>(figures_of(report, attention + ".kv_b_proj").input_amax) / largest, 1.0, 1e-4);
    const std::string query = files.find(attention + ".q_a_proj.weight") != nullptr ? ".q_a_proj" : ".q_proj";
    EXPECT_EQ(figures_of(report, attention + ".kv_a_proj_with_mqa").input_scale,
              figures_of(report, attention + query).input_scale);
  }
  ModelRunner runner(RunnerOptions{.folder = out(), .kernels = KernelSelection::kFastest});
  for (const float logit : runner.step({Piece{0, tokens_[0]}})) ASSERT_TRUE(std::isfinite(logit));
}

INSTANTIATE_TEST_SUITE_P(Variants, CalibratedLatentAttention,
                         testing::Values("deepseek_v2", "deepseek_v2_groups", "deepseek_v3"));

}  // namespace
}  // namespace octet
