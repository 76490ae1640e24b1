// Calibration of mixtures of experts, of which each sees only the tokens that its router sends. The whole model, run at
// once, shows what the routers read; who is chosen is worked out here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "model_runner.h"
#include "octet/checkpoint/safetensors_writer.h"
#include "octet/checkpoint/test_folder.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/calibration_text.h"
#include "octet/quantizer/expert_coverage.h"
#include "octet/quantizer/quantize.h"

namespace octet {
namespace {

namespace fs = std::filesystem;
using Rows = std::vector<std::vector<float>>;

Rows matrix_of(const SafetensorsFolder& files, const std::string& name) {
  const ConstTensor tensor = files.tensor(name);
  Rows rows(static_cast<size_t>(tensor.dim(0)), std::vector<float>(static_cast<size_t>(tensor.dim(1))));
  for (size_t n = 0; n < rows.size(); ++n) read_weight_row(tensor, static_cast<int64_t>(n), rows[n]);
  return rows;
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0, std::plus<>(),
                            [](float x, float y) { return static_cast<double>(x) * static_cast<double>(y); });
}

// A published structure at toy size whose routers choose the largest logits.
struct Variant {
  std::string name;
  int64_t experts_per_token;
  std::string gate, up, down;
};
std::ostream& operator<<(std::ostream& out, const Variant& variant) { return out << variant.name; }

class CalibratedMixture : public testing::TestWithParam<Variant> {
 protected:
  CalibratedMixture() {
    const int64_t vocab = ModelConfig::from_folder(golden_folder(GetParam().name)).vocab_size;
    uint32_t state = 3;
    for (int sample = 0; sample < 9; ++sample) {
      std::vector<int32_t>& ids = tokens_.emplace_back();
      for (int i = 0; i < 24; ++i) {
        state = state * 1664525u + 1013904223u;
        ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab)));
      }
    }
  }

  // The golden checkpoint in source(), but for the tensors that `filled` names, whose every number becomes `value`. In
  // every router the last rows are made one and the same: of equal logits the lower experts are chosen, so the last
  // expert never is.
  void make_source(
      const std::function<bool(const std::string&)>& filled = [](const std::string&) { return false; },
      float value = 0.0f) const {
    const SafetensorsFolder golden(golden_folder(GetParam().name));
    fs::create_directories(source());
    std::vector<TensorEntry> entries;
    for (const auto& [name, entry] : golden.entries()) entries.push_back(entry);
    SafetensorsWriter writer(source(), entries);
    for (const TensorEntry& entry : entries) {
      const ConstTensor tensor = golden.tensor(entry.name);
      std::vector<std::byte> bytes(tensor.bytes, tensor.bytes + tensor.num_bytes());
      if (entry.name.ends_with(".gate.weight")) {
        const int64_t row = tensor.num_bytes() / tensor.dim(0), last = tensor.dim(0) - 1;
        for (int64_t e = last - GetParam().experts_per_token; e < last; ++e)
          std::copy_n(tensor.bytes + last * row, row, bytes.begin() + e * row);
      }
      if (filled(entry.name)) {
        const std::vector<float> row(static_cast<size_t>(tensor.num_elements()), value);
        write_weight_row(Tensor(bytes.data(), entry.dtype, Shape{1, tensor.num_elements()}), 0, row);
      }
      writer.write(entry.name, bytes);
    }
    writer.finish();
    fs::copy_file(golden_folder(GetParam().name) + "/config.json", source() + "/config.json");
  }
  std::string source() const { return folder_ / "source"; }
  std::string out() const { return folder_ / "out"; }

  QuantizeOptions options(const std::string& model) const {
    return {.model_folder = model,
            .out_folder = out(),
            .scheme = "fp8",
            .activation_scheme = "static",
            .calibration_tokens = tokens_,
            .num_samples = 8,
            .num_threads = 2};
  }

  // The inputs of each mixture over the samples, by the mixture's name.
  std::map<std::string, Rows> mixture_inputs(const std::string& model) const {
    ModelRunner runner(RunnerOptions{.folder = model, .kernels = KernelSelection::kFastest, .num_sequences = 8});
    std::map<std::string, Rows> inputs;
    runner.observe_input = [&](std::string_view linear, ConstTensor x) {
      if (!linear.ends_with(".gate")) return;
      Rows& rows = inputs[std::string(linear.substr(0, linear.rfind('.'))) + ".experts"];
      for (int64_t t = 0; t < x.dim(0); ++t) rows.emplace_back(x.row<float>(t), x.row<float>(t) + x.dim(1));
    };
    const CalibrationText text = divide_samples(tokens_, 8);
    for (int i = 0; i < 8; ++i) runner.step({Piece{i, text.samples[static_cast<size_t>(i)]}});
    return inputs;
  }

  // The rows of `inputs` that a router sends to each expert.
  std::vector<Rows> routed(const SafetensorsFolder& files, const std::string& mixture, const Rows& inputs) const {
    const Rows router = matrix_of(files, mixture.substr(0, mixture.rfind('.')) + ".gate.weight");
    std::vector<Rows> by_expert(router.size());
    for (const std::vector<float>& x : inputs) {
      std::vector<double> logits;
      for (const std::vector<float>& row : router) logits.push_back(dot(row, x));
      std::vector<size_t> order(router.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
      for (int64_t slot = 0; slot < GetParam().experts_per_token; ++slot)
        by_expert[order[static_cast<size_t>(slot)]].push_back(x);
    }
    return by_expert;
  }

  int64_t num_experts() const {
    const SafetensorsFolder files(golden_folder(GetParam().name));
    for (const auto& [name, entry] : files.entries()) {
      if (name.ends_with(".gate.weight")) return entry.shape[0];
    }
    throw std::runtime_error("no router");
  }
  static std::vector<std::byte> bytes_of(const SafetensorsFolder& files, const std::string& name) {
    const ConstTensor tensor = files.tensor(name);
    return {tensor.bytes, tensor.bytes + tensor.num_bytes()};
  }
  static float scale_of(const SafetensorsFolder& files, const std::string& module) {
    float scale = 0.0f;
    std::memcpy(&scale, files.tensor(module + ".input_scale").bytes, sizeof(scale));
    return scale;
  }
  void expect_that_it_runs() const {
    ModelRunner runner(RunnerOptions{.folder = out(), .kernels = KernelSelection::kFastest});
    for (const float logit : runner.step({Piece{0, tokens_[0]}})) ASSERT_TRUE(std::isfinite(logit));
  }

  static const CalibratedFigures& figures_of(const QuantizeReport& report, const std::string& module) {
    const auto it = std::find_if(report.linears.begin(), report.linears.end(),
                                 [&](const LinearFigures& figures) { return figures.module == module; });
    if (it == report.linears.end()) throw std::runtime_error("no figures of " + module);
    return it->calibrated.value();
  }

  static Json figures_json(const QuantizeReport& report, const std::string& module) {
    for (const LinearFigures& figures : report.linears) {
      if (figures.module == module) return figures.to_json();
    }
    return {};
  }

  TestFolder folder_;
  std::vector<std::vector<int32_t>> tokens_;
};

TEST_P(CalibratedMixture, CountsTheTokensOfEveryExpert) {
  const std::string model = golden_folder(GetParam().name);
  const std::map<std::string, Rows> inputs = mixture_inputs(model);
  QuantizeOptions what = options(model);
  what.activation_scheme = "dynamic";
  const QuantizeReport report = quantize_checkpoint(what);
  const SafetensorsFolder files(model);
  const std::vector<ExpertCoverage> mixtures = expert_coverage(report.linears);
  ASSERT_FALSE(inputs.empty());
  ASSERT_EQ(mixtures.size(), inputs.size());
  for (const ExpertCoverage& mixture : mixtures) {
    const std::vector<Rows> expected = routed(files, mixture.mixture, inputs.at(mixture.mixture));
    ASSERT_EQ(mixture.num_tokens.size(), expected.size());
    for (size_t e = 0; e < expected.size(); ++e) {
      const auto count = static_cast<int64_t>(expected[e].size());
      EXPECT_EQ(mixture.num_tokens.at(static_cast<int64_t>(e)), count) << mixture.mixture << " " << e;
      for (const std::string& leaf : {GetParam().gate, GetParam().up, GetParam().down})
        EXPECT_EQ(figures_of(report, fmt::format("{}.{}.{}", mixture.mixture, e, leaf)).num_tokens, count);
    }
  }
  for (const LinearFigures& figures : report.linears) {
    if (expert_linear_name(figures.module)) continue;
    EXPECT_EQ(figures.calibrated->num_tokens, 8 * 24) << figures.module;
  }
  EXPECT_EQ(report.to_json().at("experts").size(), mixtures.size());
}

TEST_P(CalibratedMixture, ScalesOfExpertsWithoutTokensAreTheOthers) {
  make_source();
  const QuantizeReport report = quantize_checkpoint(options(source()));
  const SafetensorsFolder written(out()), files(source());
  const int64_t last = num_experts() - 1;
  for (const auto& [mixture, inputs] : mixture_inputs(source())) {
    const std::vector<Rows> expected = routed(files, mixture, inputs);
    ASSERT_TRUE(expected.back().empty());
    float largest_input = 0.0f, largest_down = 0.0f;
    for (const std::vector<float>& row : inputs) {
      for (const float value : row) largest_input = std::max(largest_input, std::abs(value));
    }
    const auto module = [&, &mixture = mixture](int64_t expert, const std::string& leaf) {
      return fmt::format("{}.{}.{}", mixture, expert, leaf);
    };
    for (int64_t e = 0; e <= last; ++e) {
      // One tensor is the input of all of them.
      EXPECT_EQ(scale_of(written, module(e, GetParam().gate)), largest_input * 2.0f / 448.0f) << module(e, "gate");
      EXPECT_EQ(scale_of(written, module(e, GetParam().up)), largest_input * 2.0f / 448.0f) << module(e, "up");
      const float down = scale_of(written, module(e, GetParam().down));
      const CalibratedFigures& figures = figures_of(report, module(e, GetParam().down));
      EXPECT_EQ(figures.num_tokens, static_cast<int64_t>(expected[static_cast<size_t>(e)].size()));
      if (figures.num_tokens == 0) continue;
      EXPECT_EQ(down, figures.input_amax * 2.0f / 448.0f) << module(e, "down");
      largest_down = std::max(largest_down, down);
    }
    EXPECT_EQ(scale_of(written, module(last, GetParam().down)), largest_down);
    EXPECT_EQ(figures_of(report, module(last, GetParam().down)).num_measured, 0);
  }
  for (const Json& mixture : report.to_json().at("experts"))
    EXPECT_THAT(mixture.at("without_tokens").get<std::vector<int64_t>>(), testing::Contains(last));
  EXPECT_THAT(read_file(out() + "/report.html", 1 << 22), testing::HasSubstr("experts saw no token of the text"));
  expect_that_it_runs();
}

// Recipes have nothing to learn from: the codes are those of rounding to the nearest, which needs no text.
TEST_P(CalibratedMixture, WeightsOfExpertsWithoutTokensAreTheNearest) {
  make_source();
  const std::string last = fmt::format(".{}.", num_experts() - 1);
  for (const std::string recipe : {"fast", "best"}) {
    for (const std::string& folder : {out(), folder_ / "nearest"}) fs::remove_all(folder);
    QuantizeOptions what = options(source());
    what.scheme = "fp8_channel";
    what.activation_scheme.clear();
    what.recipe = recipe;
    quantize_checkpoint(what);
    QuantizeOptions nearest{.model_folder = source(), .out_folder = folder_ / "nearest", .scheme = "fp8_channel"};
    quantize_checkpoint(nearest);
    const SafetensorsFolder written(out()), expected(nearest.out_folder);
    int num_same = 0, num_other = 0;
    for (const auto& [name, entry] : written.entries()) {
      if (name.find(".experts.") == std::string::npos || !name.ends_with(".weight")) continue;
      const bool same = bytes_of(written, name) == bytes_of(expected, name);
      if (name.find(".experts" + last) != std::string::npos) {
        EXPECT_TRUE(same) << name << " " << recipe;
        ++num_same;
      } else {
        num_other += !same;
      }
    }
    EXPECT_GT(num_same, 0);
    EXPECT_GT(num_other, num_same);  // which the recipe has rounded otherwise
    expect_that_it_runs();
  }
}

// A survey's text does not reach it either: it gets a format by what the others lose.
TEST_P(CalibratedMixture, ExpertsWithoutTokensInMixedPrecision) {
  make_source();
  QuantizeOptions what = options(source());
  what.scheme = "mixed";
  what.activation_scheme.clear();
  what.plain_share = 0.0;
  const QuantizeReport report = quantize_checkpoint(what);
  const std::string last = fmt::format(".experts.{}.", num_experts() - 1);
  int num_seen = 0;
  for (const LinearFigures& figures : report.linears) {
    if (figures.module.find(last) == std::string::npos) continue;
    EXPECT_THAT(figures.scheme, testing::AnyOf("int8", "fp8_channel")) << figures.module;
    ++num_seen;
  }
  EXPECT_GT(num_seen, 0);
  expect_that_it_runs();
}

TEST_P(CalibratedMixture, RefusesScalesThatNothingTells) {
  QuantizeOptions what = options(source());
  make_source();
  for (int64_t e = 0; e + 1 < num_experts(); ++e) what.ignore.push_back(fmt::format("re:experts\\.{}\\.", e));
  EXPECT_THAT(error_text([&] { quantize_checkpoint(what); }), testing::HasSubstr("no text reaches it"));
  fs::remove_all(out() + ".partial");
  what.ignore.clear();
  what.activation_scheme.clear();
  what.dialect = "compressed-tensors";
  what.recipe = "baseline-llmc";  // which have no such rule
  EXPECT_THAT(error_text([&] { quantize_checkpoint(what); }), testing::HasSubstr("no text reaches it"));
}

TEST_P(CalibratedMixture, RefusesScalesThatAreNoNumbers) {
  const std::string up = "." + GetParam().up + ".weight";
  const auto is_up = [&](const std::string& name) {
    return name.ends_with(up) && name.find(".experts.") != std::string::npos;
  };
  make_source(is_up);
  EXPECT_THAT(error_text([&] { quantize_checkpoint(options(source())); }),
              testing::HasSubstr("." + GetParam().down + ": the scale of its input would be 0"));
  fs::remove_all(source());
  fs::remove_all(out() + ".partial");
  make_source([](const std::string& name) { return name.ends_with("layers.0.input_layernorm.weight"); }, 3e38f);
  EXPECT_THAT(error_text([&] { quantize_checkpoint(options(source())); }), testing::HasSubstr("holds a NaN"));
}

// An expert whose inputs are zeros tells as little of its scale as one without tokens.
TEST_P(CalibratedMixture, ZerosAreNoScale) {
  make_source([&](const std::string& name) { return name.ends_with(".experts.0." + GetParam().up + ".weight"); });
  const QuantizeReport report = quantize_checkpoint(options(source()));
  const SafetensorsFolder written(out());
  for (const ExpertCoverage& mixture : expert_coverage(report.linears)) {
    float largest = 0.0f;
    for (int64_t e = 1; e < num_experts(); ++e)
      largest = std::max(largest, scale_of(written, fmt::format("{}.{}.{}", mixture.mixture, e, GetParam().down)));
    EXPECT_EQ(scale_of(written, fmt::format("{}.0.{}", mixture.mixture, GetParam().down)), largest);
  }
  expect_that_it_runs();
}

// What a whole expert would see of these rows: the largest magnitude and the root of the mean square of the input of
// its down, worked out from its weights.
struct Extent {
  double amax = 0.0, rms = 0.0;
};
Extent down_extent(const Rows& gate, const Rows& up, const Rows& inputs) {
  Extent extent;
  for (const std::vector<float>& x : inputs) {
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = dot(gate[i], x), value = g / (1.0 + std::exp(-g)) * dot(up[i], x);
      extent.amax = std::max(extent.amax, std::abs(value));
      extent.rms += value * value;
    }
  }
  extent.rms = std::sqrt(extent.rms / static_cast<double>(inputs.size() * gate.size()));
  return extent;
}

TEST_P(CalibratedMixture, AllExpertsSeeAllTokens) {
  make_source();
  QuantizeOptions what = options(source());
  const QuantizeReport routed_only = quantize_checkpoint(what);
  fs::remove_all(out());
  what.calibrate_all_experts = true;
  const QuantizeReport report = quantize_checkpoint(what);
  const SafetensorsFolder files(source());
  for (const auto& [mixture, inputs] : mixture_inputs(source())) {
    ASSERT_EQ(inputs.size(), 8u * 24u);
    double amax = 0.0, squares = 0.0;
    for (const std::vector<float>& x : inputs) {
      squares += dot(x, x);
      for (const float value : x) amax = std::max(amax, static_cast<double>(std::abs(value)));
    }
    const double rms = std::sqrt(squares / static_cast<double>(inputs.size() * inputs[0].size()));
    for (int64_t e = 0; e < num_experts(); ++e) {
      const std::string expert = fmt::format("{}.{}.", mixture, e);
      const CalibratedFigures& gate = figures_of(report, expert + GetParam().gate);
      const CalibratedFigures& down = figures_of(report, expert + GetParam().down);
      EXPECT_EQ(gate.num_tokens, 8 * 24) << expert;
      EXPECT_EQ(down.num_tokens, 8 * 24) << expert;
      EXPECT_EQ(static_cast<double>(gate.input_amax), amax) << expert;
      EXPECT_NEAR(gate.input_rms / rms, 1.0, 1e-5) << expert;
      const Extent expected = down_extent(matrix_of(files, expert + GetParam().gate + ".weight"),
                                          matrix_of(files, expert + GetParam().up + ".weight"), inputs);
      EXPECT_NEAR(static_cast<double>(down.input_amax) / expected.amax, 1.0, 1e-4) << expert;
      EXPECT_NEAR(down.input_rms / expected.rms, 1.0, 1e-4) << expert;
      EXPECT_EQ(down.input_scale, down.input_amax * 2.0f / 448.0f) << expert;
      // What is held out goes where the router sends it.
      EXPECT_EQ(down.num_measured, figures_of(routed_only, expert + GetParam().down).num_measured) << expert;
    }
  }
  // The layers' outputs are those of the routing.
  for (const LinearFigures& figures : report.linears) {
    if (expert_linear_name(figures.module)) continue;
    EXPECT_EQ(figures.to_json(), figures_json(routed_only, figures.module)) << figures.module;
  }
  EXPECT_EQ(report.model->source_perplexity, routed_only.model->source_perplexity);
  const Json config = read_json_file(out() + "/config.json");
  EXPECT_EQ(config.at("quantized_by").at("calibration").at("all_experts"), true);
  expect_that_it_runs();
}

TEST_P(CalibratedMixture, AllExpertsOfNone) {
  QuantizeOptions what = options(golden_folder("llama3"));
  what.ignore.clear();
  what.calibrate_all_experts = true;
  EXPECT_THAT(error_text([&] { quantize_checkpoint(what); }), testing::HasSubstr("has no experts"));
  what = options(golden_folder(GetParam().name));
  what.calibrate_all_experts = true;
  what.activation_scheme.clear();
  what.calibration_tokens.clear();
  EXPECT_THAT(error_text([&] { quantize_checkpoint(what); }), testing::HasSubstr("give calibration"));
}

INSTANTIATE_TEST_SUITE_P(Variants, CalibratedMixture,
                         testing::Values(Variant{"mixtral", 2, "w1", "w3", "w2"},
                                         Variant{"qwen3_moe", 3, "gate_proj", "up_proj", "down_proj"},
                                         Variant{"deepseek_v2", 3, "gate_proj", "up_proj", "down_proj"}),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace octet
