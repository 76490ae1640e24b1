#include "octet/quantizer/precision.h"

#include <algorithm>
#include <numeric>

#include "octet/base/error.h"
#include "octet/quantizer/expert_coverage.h"
#include "octet/quantizer/unit_trial.h"

namespace octet {
namespace {

constexpr size_t kSurveyedSamples = 32;

// Some samples, and none held out: nothing is judged yet.
CalibrationText surveyed(const CalibrationText& text) {
  CalibrationText some;
  const size_t count = std::min(kSurveyedSamples, text.samples.size());
  for (size_t i = 0; i < count; ++i) some.samples.push_back(text.samples[i * text.samples.size() / count]);
  return some;
}

// A unit's loss in a scheme, its input smoothed where that can be done and helps.
double loss_in(const NamedScheme& scheme, const PlannedUnit& unit, const std::vector<FoldPlace>& places,
               const Smoothing& smoothing, const SafetensorsFolder& source, const UnitTrial& trial,
               const ObservedInput& input, ThreadPool& threads) {
  const auto place =
      std::find_if(places.begin(), places.end(), [&](const FoldPlace& p) { return p.consumer == &unit; });
  if (place == places.end()) return trial.error(scheme);
  return find_strength(smoothing, *place, scheme, trial, input.statistics.channel_amax(), source, threads).error;
}

// An expert that no text reaches is taken to lose what the same projection of the layer's other experts loses on
// average. `losses`: of the layer.
UnitLoss mean_of_others(const PlannedUnit& unit, std::span<const UnitLoss> losses) {
  const ExpertLinearName name = expert_linear_name(unit.name).value();
  UnitLoss mean{.unit = unit.name};
  double count = 0.0;
  for (const UnitLoss& loss : losses) {
    const auto other = expert_linear_name(loss.unit);
    if (!other || other->mixture != name.mixture || other->leaf != name.leaf) continue;
    mean.int8 += loss.int8;
    mean.fp8 += loss.fp8;
    count += 1.0;
  }
  mean.int8 /= count;
  mean.fp8 /= count;
  return mean;
}

int64_t num_weights(const PlannedUnit& unit) {
  int64_t count = 0;
  for (const PlannedLinear& part : unit.parts) count += part.n * part.k;
  return count;
}

}  // namespace

int64_t survey_steps(const ModelConfig& config, const CalibrationText& text) {
  return Calibration::count_steps(surveyed(text), config.num_hidden_layers);
}

std::vector<UnitLoss> survey_units(const ModelConfig& config, const SafetensorsFolder& source, const QuantizePlan& plan,
                                   const CalibrationText& text, ObservedExperts experts, const Smoothing& smoothing,
                                   ThreadPool& threads, const std::function<void()>& on_step) {
  const CalibrationText some = surveyed(text);
  const CpuBackend backend(threads);
  const NamedScheme int8 = named_scheme("int8", ""), fp8 = named_scheme("fp8_channel", "");
  Calibration calibration(config, source, plan, some, experts, threads, on_step);
  std::vector<UnitLoss> losses;
  for (int64_t layer = 0; layer < calibration.num_layers(); ++layer) {
    const ObservedLayer seen = calibration.run_source(layer, Calibration::Observe::kInputs, 1.0f);
    const std::vector<FoldPlace> places =
        smoothing.kind == Smoothing::Kind::kOff ? std::vector<FoldPlace>() : fold_places(plan, config, source, layer);
    std::vector<const PlannedUnit*> without_tokens;
    const size_t first = losses.size();
    for (const PlannedUnit& unit : plan.units) {
      const auto it = unit.layer == layer ? seen.inputs.find(unit.name) : seen.inputs.end();
      if (it == seen.inputs.end()) continue;
      if (it->second.statistics.num_tokens() == 0) {
        without_tokens.push_back(&unit);
        continue;
      }
      const UnitTrial trial(*backend, unit, source, {}, it->second.sample.rows(), threads);
      UnitLoss loss{.unit = unit.name, .num_weights = num_weights(unit)};
      loss.int8 = loss_in(int8, unit, places, smoothing, source, trial, it->second, threads);
      loss.fp8 = loss_in(fp8, unit, places, smoothing, source, trial, it->second, threads);
      losses.push_back(std::move(loss));
    }
    const std::vector<UnitLoss> measured(losses.begin() + static_cast<int64_t>(first), losses.end());
    for (const PlannedUnit* unit : without_tokens) {
      losses.push_back(mean_of_others(*unit, measured));
      losses.back().num_weights = num_weights(*unit);
    }
  }
  return losses;
}

std::map<std::string, NamedScheme> choose_precision(std::span<const UnitLoss> losses, double plain_share) {
  const NamedScheme int8 = named_scheme("int8", ""), fp8 = named_scheme("fp8_channel", "");
  std::map<std::string, NamedScheme> chosen;
  std::vector<size_t> order(losses.size());
  std::iota(order.begin(), order.end(), size_t{0});
  double budget = 0.0;
  for (const UnitLoss& loss : losses) {
    chosen.emplace(loss.unit, loss.int8 <= loss.fp8 ? int8 : fp8);
    budget += plain_share * static_cast<double>(loss.num_weights);
  }
  const auto gain = [&](size_t i) {
    return std::min(losses[i].int8, losses[i].fp8) / static_cast<double>(std::max<int64_t>(1, losses[i].num_weights));
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return gain(a) > gain(b); });
  for (const size_t i : order) {
    const auto weights = static_cast<double>(losses[i].num_weights);
    if (weights > budget) continue;
    budget -= weights;
    chosen[losses[i].unit] = NamedScheme{.name = "plain"};
  }
  return chosen;
}

}  // namespace octet
