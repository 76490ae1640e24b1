// Smoothing moves magnitude from inputs to weights without changing what the model computes; and mixed precision.
#include "octet/quantizer/smoothing.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "model_runner.h"
#include "octet/base/file.h"
#include "octet/checkpoint/safetensors_writer.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/precision.h"
#include "octet/quantizer/quantize.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

std::vector<std::vector<int32_t>> random_tokens(int64_t vocab, int count, int length) {
  std::vector<std::vector<int32_t>> all;
  uint32_t state = 5;
  for (int sample = 0; sample < count; ++sample) {
    std::vector<int32_t>& ids = all.emplace_back();
    for (int i = 0; i < length; ++i) {
      state = state * 1664525u + 1013904223u;
      ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab)));
    }
  }
  return all;
}

class Smoothed : public testing::TestWithParam<std::string> {
 protected:
  Smoothed()
      : folder_(fs::path(testing::TempDir()) / ("octet_smoothed_" + std::to_string(::getpid()))),
        config_(ModelConfig::from_folder(golden_folder(GetParam()))),
        source_(golden_folder(GetParam())) {
    clear();
  }
  ~Smoothed() override { clear(); }
  void clear() const {
    fs::remove_all(folder_);
    fs::remove_all(folder_.string() + ".partial");
  }

  // The source with its folds: what is copied in its own dtype, linears, which would be quantised, in F32.
  void write(const QuantizePlan& plan, const Folds& folds) {
    fs::create_directories(folder_);
    std::vector<TensorEntry> entries;
    for (const auto& [name, entry] : source_.entries()) {
      entries.push_back(entry);
      const bool is_linear = std::any_of(plan.units.begin(), plan.units.end(), [&name = name](const PlannedUnit& unit) {
        return std::any_of(unit.parts.begin(), unit.parts.end(),
                           [&](const PlannedLinear& part) { return name.starts_with(part.module + "."); });
      });
      if (is_linear) entries.back().dtype = DType::kF32;
    }
    SafetensorsWriter writer(folder_.string(), entries);
    for (const TensorEntry& entry : entries) {
      SourceTensor tensor(source_, entry.name, threads_);
      Fold fold;
      if (const auto it = folds.find(entry.name); it != folds.end()) fold = it->second;
      const int64_t count = entry.shape.num_elements();
      if (fold.empty()) fold.rows.assign(static_cast<size_t>(entry.shape.rank() > 1 ? entry.shape[0] : count), 1.0f);
      tensor.apply(fold, threads_);
      std::vector<std::byte> bytes(static_cast<size_t>(count * dtype_bytes(entry.dtype)));
      write_weight_row(Tensor(bytes.data(), entry.dtype, Shape{1, count}), 0,
                       std::span(tensor.matrix().data<float>(), static_cast<size_t>(count)));
      writer.write(entry.name, bytes);
    }
    writer.finish();
    fs::copy_file(golden_folder(GetParam()) + "/config.json", folder_ / "config.json");
  }

  QuantizeOptions options(const std::string& scheme) const {
    return {.model_folder = golden_folder(GetParam()),
            .out_folder = folder_.string(),
            .scheme = scheme,
            .calibration_tokens = random_tokens(config_.vocab_size, 9, 24),
            .num_samples = 8,
            .num_threads = 2};
  }

  ThreadPool threads_{2};
  fs::path folder_;
  ModelConfig config_;
  SafetensorsFolder source_;
};

TEST_P(Smoothed, FoldingChangesNoLogits) {
  const QuantizePlan plan = plan_quantization(source_, {.scheme = named_scheme("int8", "")});
  const CalibrationText text = divide_samples(random_tokens(config_.vocab_size, 9, 24), 8);
  const CpuBackend backend(threads_);
  Calibration calibration(config_, source_, plan, text, ObservedExperts::kRouted, threads_, [] {});
  Folds folds;
  const Smoothing half{.kind = Smoothing::Kind::kFixed, .strength = 0.5};
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    ObservedLayer seen = calibration.run_source(layer, Calibration::Observe::kInputs, 1.0f);
    const std::vector<FoldPlace> places = fold_places(plan, config_, source_, layer);
    ASSERT_EQ(places.size(), 4u);
    const SmoothedLayer smoothed = smooth_layer(half, places, source_, *backend, threads_, seen);
    EXPECT_EQ(smoothed.strengths.size(), 4u);
    for (const auto& [name, fold] : smoothed.folds) folds[name] = fold;
  }
  // Factors are not all 1: something was folded.
  const std::vector<float>& factors = folds.at("model.layers.1.mlp.down_proj.weight").columns;
  EXPECT_GT(*std::max_element(factors.begin(), factors.end()) / *std::min_element(factors.begin(), factors.end()),
            1.5f);
  write(plan, folds);
  ModelRunner plain(RunnerOptions{.folder = golden_folder(GetParam())}),
      folded(RunnerOptions{.folder = folder_.string()});
  const std::vector<float> expected = plain.step({Piece{0, text.samples[0]}}),
                           found = folded.step({Piece{0, text.samples[0]}});
  double error = 0.0, sum = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(static_cast<double>(found[i]) - static_cast<double>(expected[i]), 2);
    sum += std::pow(static_cast<double>(expected[i]), 2);
  }
  EXPECT_LT(std::sqrt(error / sum), 1e-5);
}

// What calibration knows of a smoothed input is what it would see of the folded model.
TEST_P(Smoothed, DividesWhatWasSeen) {
  const QuantizePlan plan = plan_quantization(source_, {.scheme = named_scheme("int8", "")});
  const CalibrationText text = divide_samples(random_tokens(config_.vocab_size, 9, 24), 8);
  const CpuBackend backend(threads_);
  Calibration calibration(config_, source_, plan, text, ObservedExperts::kRouted, threads_, [] {});
  ObservedLayer seen = calibration.run_source(0, Calibration::Observe::kHessians, 1.0f), before = seen;
  const SmoothedLayer smoothed =
      smooth_layer({.kind = Smoothing::Kind::kFixed, .strength = 0.7}, fold_places(plan, config_, source_, 0), source_,
                   *backend, threads_, seen);
  const std::string unit = "model.layers.0.mlp.down_proj";
  const std::vector<float>& by = smoothed.folds.at(unit + ".weight").columns;
  const ObservedInput &a = before.inputs.at(unit), &b = seen.inputs.at(unit);
  for (size_t k = 0; k < by.size(); ++k) {
    EXPECT_FLOAT_EQ(b.statistics.channel_amax()[k], a.statistics.channel_amax()[k] / by[k]);
    EXPECT_FLOAT_EQ(b.held_out.rows().row<float>(1)[k], a.held_out.rows().row<float>(1)[k] / by[k]);
  }
  EXPECT_FLOAT_EQ(b.hessian->at(7, 3), a.hessian->at(7, 3) / (by[7] * by[3]));
}

// A channel that a norm makes 64 times as large and its readers as much smaller: the same model, of which rounding to
// INT8 loses what the other channels say, and smoothing saves it.
TEST_P(Smoothed, SavesWhatAnOutlierCostsInInt8) {
  const QuantizePlan plan = plan_quantization(source_, {.scheme = named_scheme("int8", "")});
  Folds outliers;
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    std::vector<float> by(static_cast<size_t>(config_.hidden_size), 1.0f);
    by[5] = 1.0f / 64.0f;
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
      outliers[prefix + name + ".weight"].columns = by;
    outliers[prefix + "input_layernorm.weight"].rows = by;
  }
  write(plan, outliers);
  const fs::path source = folder_.string() + "_source";
  fs::remove_all(source);
  fs::rename(folder_, source);
  double kl[2];
  for (const size_t smooth : {0u, 1u}) {
    clear();
    QuantizeOptions what = options("int8");
    what.model_folder = source.string();
    what.smooth = smooth == 1 ? "auto" : "off";
    kl[smooth] = quantize_checkpoint(what).model->kl_mean;
  }
  EXPECT_EQ(read_json_file(folder_.string() + "/config.json").at("quantized_by").at("smooth"), "auto");
  fs::remove_all(source);
  EXPECT_LT(kl[1], 0.5 * kl[0]);
}

TEST_P(Smoothed, ContinuesWithTheSameBytes) {
  QuantizeOptions what = options("mixed");
  what.recipe = "best";
  what.smooth = "0.6";
  what.plain_share = 0.1;
  int num_steps = 0;
  what.on_progress = [&](int64_t done, int64_t total) {
    EXPECT_LE(done, total);
    ++num_steps;
  };
  const QuantizeReport whole = quantize_checkpoint(what);
  const std::string bytes = read_file(folder_.string() + "/model.safetensors", 1 << 28);
  const std::string config = read_file(folder_.string() + "/config.json", 1 << 20);
  for (int last = 1; last <= num_steps; last += 2) {
    clear();
    int calls = 0;
    what.resume = false;
    what.on_progress = [&](int64_t, int64_t) {
      if (++calls == last) throw std::runtime_error("interrupted");
    };
    EXPECT_THROW(quantize_checkpoint(what), std::runtime_error);
    what.resume = fs::exists(folder_.string() + ".partial");  // a survey has written nothing yet
    what.on_progress = nullptr;
    const QuantizeReport resumed = quantize_checkpoint(what);
    EXPECT_EQ(read_file(folder_.string() + "/model.safetensors", 1 << 28), bytes) << last;
    EXPECT_EQ(read_file(folder_.string() + "/config.json", 1 << 20), config) << last;
    EXPECT_EQ(resumed.to_json().at("linears"), whole.to_json().at("linears"));
  }
}

// Every linear is stored as the report and the configuration say, and the model runs.
TEST_P(Smoothed, MixedPrecisionIsWrittenAndRead) {
  QuantizeOptions what = options("mixed");
  what.plain_share = 0.3;
  const QuantizeReport report = quantize_checkpoint(what);
  EXPECT_EQ(report.scheme, "mixed");
  EXPECT_LT(report.linears.size(), static_cast<size_t>(7 * config_.num_hidden_layers));  // some stayed as they are
  EXPECT_FALSE(report.linears.empty());
  const SafetensorsFolder written(folder_.string());
  for (const LinearFigures& figures : report.linears) {
    const DType dtype = written.find(figures.module + ".weight")->dtype;
    EXPECT_EQ(dtype, figures.scheme == "int8" ? DType::kI8 : DType::kF8E4M3) << figures.module;
  }
  ModelRunner runner(RunnerOptions{.folder = folder_.string(), .kernels = KernelSelection::kFastest});
  EXPECT_EQ(runner.step({Piece{0, {1, 2, 3}}}).size(), static_cast<size_t>(3 * config_.vocab_size));
}

INSTANTIATE_TEST_SUITE_P(Variants, Smoothed, testing::Values("llama3", "qwen2", "qwen3"));

TEST(Smoothing, FactorsByHand) {
  // Geometric means: of x 4, of w 1; strength 1/2: sqrt(x / w), over their geometric mean 2.
  const float x[] = {16.0f, 1.0f, 0.0f}, w[] = {1.0f, 1.0f, 2.0f};
  const std::vector<float> factors = smoothing_factors(x, w, 0.5, {});
  EXPECT_FLOAT_EQ(factors[0], 2.0f);
  EXPECT_FLOAT_EQ(factors[1], 0.5f);
  EXPECT_EQ(factors[2], 1.0f);  // never anything but zero
  // Two heads of two channels that read the same values share the larger.
  const float heads[] = {1.0f, 4.0f, 16.0f, 4.0f}, ones[] = {1.0f, 1.0f, 1.0f, 1.0f};
  const std::vector<float> shared = smoothing_factors(heads, ones, 1.0, {.head_dim = 2, .group = 2});
  EXPECT_FLOAT_EQ(shared[0], 2.0f);
  EXPECT_FLOAT_EQ(shared[1], 0.5f);
  EXPECT_EQ(shared[2], shared[0]);
  EXPECT_EQ(shared[3], shared[1]);
}

TEST(Smoothing, IsParsed) {
  EXPECT_EQ(parse_smoothing("off").kind, Smoothing::Kind::kOff);
  EXPECT_EQ(parse_smoothing("auto").kind, Smoothing::Kind::kAuto);
  EXPECT_EQ(parse_smoothing("0.25").strength, 0.25);
  for (const char* bad : {"1.5", "-0.1", "half", "0.5x", "nan"}) EXPECT_THROW(parse_smoothing(bad), Error) << bad;
}

TEST(Precision, ChoosesWhatLosesLessAndSparesTheWorst) {
  const std::vector<UnitLoss> losses = {{"a", 100, 1e-4, 7e-4}, {"b", 100, 5e-2, 9e-4}, {"c", 10, 3e-4, 7e-4}};
  auto chosen = choose_precision(losses, 0.0);
  EXPECT_EQ(chosen.at("a").name, "int8");
  EXPECT_EQ(chosen.at("b").name, "fp8_channel");
  // 10 of 210 weights: only c fits, which loses most for its size anyway.
  chosen = choose_precision(losses, 0.05);
  EXPECT_EQ(chosen.at("c").weights, nullptr);
  EXPECT_NE(chosen.at("b").weights, nullptr);
  chosen = choose_precision(losses, 0.6);
  EXPECT_EQ(chosen.at("b").weights, nullptr);
  EXPECT_NE(chosen.at("a").weights, nullptr);
}

}  // namespace
}  // namespace octet
