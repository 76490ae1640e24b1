// Calibration runs a model layer by layer; the whole model, run at once, says what it must find.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "model_runner.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/calibration_text.h"
#include "octet/quantizer/quantize.h"
#include "octet/sampling/logit_divergence.h"

namespace octet {
namespace {

namespace fs = std::filesystem;
constexpr int kSampleLength = 24;

class Calibrated : public testing::TestWithParam<std::string> {
 protected:
  Calibrated() : folder_(fs::path(testing::TempDir()) / ("octet_calibrated_" + std::to_string(::getpid()))) {
    clear();
    const int64_t vocab = ModelConfig::from_folder(golden_folder(GetParam())).vocab_size;
    uint32_t state = 1;
    for (int sample = 0; sample < 9; ++sample) {
      std::vector<int32_t>& ids = tokens_.emplace_back();
      for (int i = 0; i < kSampleLength; ++i) {
        state = state * 1664525u + 1013904223u;
        ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab)));
      }
    }
  }
  ~Calibrated() override { clear(); }
  void clear() const {
    fs::remove_all(folder_);
    fs::remove_all(folder_.string() + ".partial");
  }
  std::string out() const { return folder_.string(); }

  QuantizeOptions options() const {
    return {.model_folder = golden_folder(GetParam()),
            .out_folder = out(),
            .scheme = "fp8",
            .activation_scheme = "static",
            .calibration_tokens = tokens_,
            .num_samples = 8,
            .kv_cache_scheme = "tensor",
            .num_threads = 2};
  }
  static std::vector<float> floats(const SafetensorsFolder& files, const std::string& name) {
    const ConstTensor tensor = files.tensor(name);
    std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
    std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(float));
    return values;
  }

  fs::path folder_;
  std::vector<std::vector<int32_t>> tokens_;
};

TEST_P(Calibrated, StaticScalesHoldTwiceTheLargestInput) {
  QuantizeOptions what = options();
  const QuantizeReport report = quantize_checkpoint(what);
  const CalibrationText text = divide_samples(tokens_, 8);
  ASSERT_EQ(text.samples.size(), 8u);
  ASSERT_EQ(text.held_out.size(), 1u);
  ModelRunner source(
      RunnerOptions{.folder = golden_folder(GetParam()), .kernels = KernelSelection::kFastest, .num_sequences = 9});
  std::map<std::string, float> largest;
  source.observe_input = [&](std::string_view linear, ConstTensor input) {
    for (const float value : to_floats(input)) {
      float& most = largest[std::string(linear)];
      most = std::max(most, std::abs(value));
    }
  };
  for (int i = 0; i < 8; ++i) source.step({Piece{i, text.samples[static_cast<size_t>(i)]}});
  const SafetensorsFolder files(out());
  int num_seen = 0;
  for (int64_t layer = 0; layer < source.config().num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const std::pair<std::string, std::vector<std::string>> groups[] = {
        {"self_attn.{q_proj,k_proj,v_proj}", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
        {"self_attn.o_proj", {"self_attn.o_proj"}},
        {"mlp.{gate_proj,up_proj}", {"mlp.gate_proj", "mlp.up_proj"}},
        {"mlp.down_proj", {"mlp.down_proj"}}};
    for (const auto& [linear, modules] : groups) {
      ASSERT_TRUE(largest.contains(prefix + linear));
      for (const std::string& module : modules) {
        EXPECT_EQ(floats(files, prefix + module + ".input_scale"),
                  std::vector<float>{largest[prefix + linear] * 2.0f / 448.0f})
            << prefix + module;
        ++num_seen;
      }
    }
    EXPECT_GT(floats(files, prefix + "self_attn.k_scale").at(0), 0.0f);
  }
  EXPECT_EQ(num_seen, static_cast<int>(report.linears.size()));
  for (const LinearFigures& figures : report.linears) {
    ASSERT_TRUE(figures.calibrated);
    EXPECT_GT(figures.calibrated->output_error, 1e-5) << figures.module;
    EXPECT_LT(figures.calibrated->output_error, 1e-2) << figures.module;
    EXPECT_EQ(figures.calibrated->saturated, 0.0);
  }
}

// The divergence that the pipeline finds in one sweep is that of the two models run whole.
TEST_P(Calibrated, FindsTheDivergenceOfTheWholeModels) {
  QuantizeOptions what = options();
  what.kv_cache_scheme.clear();
  const QuantizeReport report = quantize_checkpoint(what);
  const std::vector<int32_t> held_out = divide_samples(tokens_, 8).held_out.at(0);
  ModelRunner source(RunnerOptions{.folder = golden_folder(GetParam()), .kernels = KernelSelection::kFastest});
  ModelRunner written(RunnerOptions{.folder = out(), .kernels = KernelSelection::kFastest});
  const std::vector<float> expected = source.step({Piece{0, held_out}}), found = written.step({Piece{0, held_out}});
  const auto vocab = static_cast<size_t>(source.vocab_size());
  double sum = 0.0, same = 0.0;
  for (size_t t = 0; t < held_out.size(); ++t) {
    const RowDivergence row =
        row_divergence(std::span(expected).subspan(t * vocab, vocab), std::span(found).subspan(t * vocab, vocab));
    sum += row.kl;
    same += row.same_top1 ? 1.0 : 0.0;
  }
  const auto count = static_cast<double>(held_out.size());
  ASSERT_TRUE(report.model);
  EXPECT_GT(sum, 0.0);
  EXPECT_NEAR(report.model->kl_mean, sum / count, 1e-12);
  EXPECT_NEAR(report.model->top1_agreement, same / count, 1e-12);
  EXPECT_EQ(report.model->num_tokens, kSampleLength);
  EXPECT_EQ(report.layers.size(), static_cast<size_t>(source.config().num_hidden_layers));
}

TEST_P(Calibrated, ScalesOfTheCachePerHead) {
  QuantizeOptions what = options();
  what.dialect = "compressed-tensors";
  what.kv_cache_scheme = "head";
  quantize_checkpoint(what);
  const ModelConfig config = ModelConfig::from_folder(out());
  const SafetensorsFolder files(out());
  const std::string attention = "model.layers.1.self_attn";
  EXPECT_EQ(files.find(attention + ".v_scale")->shape, (Shape{config.num_key_value_heads, 1, 1}));
  // Values are what v_proj gives, whose input the whole model shows.
  ModelRunner source(
      RunnerOptions{.folder = golden_folder(GetParam()), .kernels = KernelSelection::kFastest, .num_sequences = 9});
  const SafetensorsFolder weights(golden_folder(GetParam()));
  const ConstTensor v_proj = weights.tensor(attention + ".v_proj.weight");
  const bool has_bias = weights.find(attention + ".v_proj.bias") != nullptr;
  std::vector<float> largest(static_cast<size_t>(config.num_key_value_heads), 0.0f);
  source.observe_input = [&](std::string_view linear, ConstTensor input) {
    if (linear != attention + ".{q_proj,k_proj,v_proj}") return;
    std::vector<float> row(static_cast<size_t>(v_proj.dim(1))), bias(1, 0.0f);
    for (int64_t n = 0; n < v_proj.dim(0); ++n) {
      read_weight_row(v_proj, n, row);
      if (has_bias) {
        const ConstTensor biases = weights.tensor(attention + ".v_proj.bias");
        read_weight_row(biases.reshape(Shape{biases.num_elements(), 1}), n, bias);
      }
      for (int64_t t = 0; t < input.dim(0); ++t) {
        double value = static_cast<double>(bias[0]);
        for (int64_t k = 0; k < v_proj.dim(1); ++k)
          value += static_cast<double>(row[static_cast<size_t>(k)]) * static_cast<double>(input.row<float>(t)[k]);
        float& most = largest[static_cast<size_t>(n / config.head_dim)];
        most = std::max(most, static_cast<float>(std::abs(value)));
      }
    }
  };
  const CalibrationText text = divide_samples(tokens_, 8);
  for (int i = 0; i < 8; ++i) source.step({Piece{i, text.samples[static_cast<size_t>(i)]}});
  const std::vector<float> scales = floats(files, attention + ".v_scale");
  for (size_t head = 0; head < scales.size(); ++head)
    EXPECT_NEAR(scales[head] * 448.0f / 2.0f / largest[head], 1.0f, 1e-4f);
}

TEST_P(Calibrated, ContinuesWithTheSameBytes) {
  QuantizeOptions what = options();
  int num_steps = 0;
  what.on_progress = [&](int64_t done, int64_t total) {
    EXPECT_LE(done, total);
    ++num_steps;
  };
  const QuantizeReport whole = quantize_checkpoint(what);
  const std::string bytes = read_file(out() + "/model.safetensors", 1 << 28);
  const std::string config = read_file(out() + "/config.json", 1 << 20);
  ASSERT_GE(num_steps, 6);
  for (int last = 1; last <= num_steps; ++last) {
    clear();
    int calls = 0;
    what.resume = false;
    what.on_progress = [&](int64_t, int64_t) {
      if (++calls == last) throw std::runtime_error("interrupted");
    };
    EXPECT_THROW(quantize_checkpoint(what), std::runtime_error);
    EXPECT_FALSE(fs::exists(out()));
    what.resume = true;
    what.on_progress = nullptr;
    const QuantizeReport resumed = quantize_checkpoint(what);
    EXPECT_EQ(read_file(out() + "/model.safetensors", 1 << 28), bytes) << last;
    EXPECT_EQ(read_file(out() + "/config.json", 1 << 20), config) << last;
    EXPECT_EQ(resumed.to_json().at("linears"), whole.to_json().at("linears"));
    EXPECT_EQ(resumed.to_json().at("layers"), whole.to_json().at("layers"));
  }
}

// Of every linear, on text that was not seen; GPTQ needs many tokens, so the sample is what was calibrated on.
TEST_P(Calibrated, RecipesLoseNoMoreThanTheNearest) {
  for (const std::string scheme : {"fp8", "fp8_channel", "fp8_block", "int8"}) {
    double sums[2] = {0.0, 0.0};
    for (const std::string recipe : {"fast", "best"}) {
      clear();
      QuantizeOptions what = options();
      what.scheme = scheme;
      what.activation_scheme.clear();
      what.kv_cache_scheme.clear();
      what.recipe = recipe;
      std::vector<int32_t> joined;  // one sample is both calibrated and judged on
      for (const auto& sample : tokens_) joined.insert(joined.end(), sample.begin(), sample.end());
      joined.resize(120);
      what.calibration_tokens = {joined};
      for (const LinearFigures& figures : quantize_checkpoint(what).linears) {
        // What activations lose is in both errors.
        EXPECT_LT(figures.calibrated->output_error, 1.05 * figures.calibrated->rounded_output_error)
            << figures.module << " " << scheme << " " << recipe;
        if (recipe == "best") {
          sums[0] += figures.calibrated->output_error;
          sums[1] += figures.calibrated->rounded_output_error;
        }
      }
    }
    EXPECT_LT(sums[0], 0.9 * sums[1]) << scheme;
  }
  QuantizeOptions what = options();
  what.recipe = "finest";
  EXPECT_THROW(quantize_checkpoint(what), Error);
}

TEST_P(Calibrated, FailsWhereTooMuchIsLost) {
  QuantizeOptions what = options();
  what.max_kld = 1e-9;
  EXPECT_THROW(quantize_checkpoint(what), Error);
  EXPECT_FALSE(fs::exists(out()));
}

INSTANTIATE_TEST_SUITE_P(Variants, Calibrated, testing::Values("llama3", "qwen2", "qwen3"));

TEST(CalibrationText, IsDividedEvenly) {
  std::vector<std::vector<int32_t>> all;
  for (int32_t i = 0; i < 40; ++i) all.push_back({i});
  const CalibrationText text = divide_samples(all, 16);
  EXPECT_EQ(text.samples.size(), 16u);
  EXPECT_EQ(text.held_out.size(), 2u);
  EXPECT_EQ(text.samples.front(), std::vector<int32_t>{0});
  EXPECT_GT(text.held_out.back()[0], 30);  // to the end of the text
  EXPECT_EQ(divide_samples({{1}, {2}}, 128).samples.size(), 1u);
  EXPECT_EQ(divide_samples({{1}}, 128).held_out.size(), 1u);
  EXPECT_THROW(divide_samples({}, 128), Error);
  EXPECT_NE(divide_samples(all, 16).digest(), divide_samples(all, 17).digest());
}

}  // namespace
}  // namespace octet
