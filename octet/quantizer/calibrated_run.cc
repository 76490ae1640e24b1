#include "octet/quantizer/calibrated_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/quantizer/expert_coverage.h"

namespace octet {
namespace {

// A static scale of an input that is larger than this many times its root mean square loses small numbers to zero.
constexpr double kMostCrest = 3000.0;
constexpr float kMinAmax = 1e-12f;  // of a cache that never held anything but zeros

class CalibratedRun {
 public:
  CalibratedRun(const CalibratedTask& task, UnitWriter& units, ThreadPool& threads)
      : task_(task),
        plan_(task.plan),
        threads_(threads),
        units_(units),
        backend_(threads),
        // Baselines' tools leave no room above what they have seen.
        headroom_(is_baseline(plan_.recipe) ? 1.0f : std::ldexp(1.0f, task.options.headroom)),
        quantization_config_(plan_.writer->quantization_config(plan_.quant)),
        quant_(&quantization_config_, {}, task.config.dtype),
        written_(task.folder),
        calibration_(task.config, task.source, plan_, task.text, task.options.observed_experts(), threads,
                     [this] {
                       const auto& report = task_.options.on_progress;
                       if (report) report(++num_steps_, task_.steps_before + calibration_.num_steps());
                     }),
        num_steps_(task.steps_before) {}

  CalibratedFindings run() {
    // What is in no layer first: the embedding of the first stage, the norm of the last.
    for (const PlannedUnit& unit : plan_.units) {
      if (unit.layer && *unit.layer < calibration_.num_layers()) continue;
      if (!unit.parts.empty()) {
        fail(ErrorCode::kUnsupported, "{}: lies in none of the model's {} layers and cannot be calibrated; ignore it",
             unit.name, calibration_.num_layers());
      }
      units_.write(unit);
    }
    CalibratedFindings findings;
    for (int64_t layer = 0; layer < calibration_.num_layers(); ++layer) findings.layers.push_back(run_layer(layer));
    findings.model = calibration_.compare();
    return findings;
  }

 private:
  LayerFigures run_layer(int64_t layer) {
    std::vector<const PlannedUnit*> units;
    for (const PlannedUnit& unit : plan_.units) {
      if (unit.layer == layer) units.push_back(&unit);
    }
    const bool done = std::all_of(units.begin(), units.end(), [&](const PlannedUnit* u) { return units_.is_done(*u); });
    using Observe = Calibration::Observe;
    const Observe wanted = needs_hessian(plan_.recipe) ? Observe::kHessians : Observe::kInputs;
    ObservedLayer seen = calibration_.run_source(layer, done ? Observe::kNothing : wanted, headroom_);
    if (!done) warn_of_experts(units, seen);
    const CacheScales found = cache_scales(seen);
    SmoothedLayer smoothed;
    if (task_.smoothing.kind != Smoothing::Kind::kOff && !done) {
      const std::vector<FoldPlace> places = fold_places(plan_, task_.config, task_.source, layer);
      smoothed = smooth_layer(task_.smoothing, places, task_.source, *backend_, threads_, seen);
    }
    for (const PlannedUnit* unit : units) {
      if (unit->parts.empty() || units_.is_done(*unit)) {
        units_.write(*unit, {.cache = &found, .folds = &smoothed.folds});
      } else {
        write_observed(*unit, seen, found, smoothed);
      }
    }
    units_.sync();
    const CacheScales scales = written_scales(units);
    const double drift = calibration_.run_written(layer, written_, quant_, scales);
    return {.layer = layer, .drift = drift, .k_scales = scales.k, .v_scales = scales.v};
  }

  // Once for each mixture.
  static void warn_of_experts(const std::vector<const PlannedUnit*>& units, const ObservedLayer& seen) {
    std::vector<ExpertCoverage> mixtures;
    bool fixed = false;
    for (const PlannedUnit* unit : units) {
      const auto it = seen.inputs.find(unit->name);
      if (it == seen.inputs.end()) continue;
      count_expert(mixtures, unit->name, it->second.statistics.num_tokens());
      fixed = fixed || unit->scheme.static_activations();
    }
    for (const ExpertCoverage& mixture : mixtures) {
      const std::vector<int64_t> without = mixture.without_tokens();
      if (without.empty()) continue;
      log_warning("{}: no token of the calibration text reaches {} of its {} experts ({}): {}", mixture.mixture,
                  without.size(), mixture.num_tokens.size(), list_experts(without),
                  fixed
                      ? "their weights are rounded to the nearest, their inputs' scales are the largest of the others'"
                      : "their weights are rounded to the nearest");
    }
  }

  // Throws for what would be 0 or no number.
  float static_scale(const PlannedUnit& unit, float amax) const {
    const float scale = amax * headroom_ / kMaxF8E4M3;
    if (!std::isnormal(scale)) {
      fail(ErrorCode::kModel,
           "{}: the scale of its input would be {}: its largest magnitude over the calibration text is {}; ignore it",
           unit.name, scale, amax);
    }
    return scale;
  }

  void write_observed(const PlannedUnit& unit, const ObservedLayer& seen, const CacheScales& cache,
                      const SmoothedLayer& smoothed) {
    const auto it = seen.inputs.find(unit.name);
    if (it == seen.inputs.end())
      fail(ErrorCode::kUnsupported, "{}: no text reaches it when the model runs; ignore it", unit.name);
    const ObservedInput& observed = it->second;
    const InputStatistics& statistics = observed.statistics;
    if (!std::isfinite(statistics.rms())) {
      fail(ErrorCode::kModel, "{}: its input holds a NaN or an infinity when the model runs over the calibration text",
           unit.name);
    }
    UnitInput input{.statistics = &statistics,
                    .held_out = observed.held_out.rows(),
                    .backend = &*backend_,
                    .hessian = observed.hessian ? &*observed.hessian : nullptr};
    if (const auto strength = smoothed.strengths.find(unit.name); strength != smoothed.strengths.end())
      input.smoothing = strength->second;
    if (unit.scheme.static_activations()) {
      input.input_scale = static_scale(unit, observed.amax);
      const auto elements = static_cast<double>(std::max<int64_t>(1, observed.held_out.num_seen()) * unit.parts[0].k);
      input.saturated = static_cast<double>(observed.num_beyond) / elements;
      const double rms = statistics.rms();
      if (rms > 0.0 && observed.amax * headroom_ > kMostCrest * rms) {
        log_warning("{}: the largest input is {:.0f} times the root mean square: a static scale loses its small ones",
                    unit.name, observed.amax / rms);
      }
    }
    units_.write(unit, {.input = &input, .cache = &cache, .folds = &smoothed.folds});
  }

  CacheScales cache_scales(const ObservedLayer& seen) const {
    if (!plan_.quant.kv_cache || seen.cache.k.empty()) return {};
    const auto scales = [&](const std::vector<float>& maxima) {
      std::vector<float> result = maxima;
      if (!plan_.quant.kv_cache->per_head) result.assign(1, *std::max_element(maxima.begin(), maxima.end()));
      for (float& scale : result) scale = std::max(scale, kMinAmax) * headroom_ / kMaxF8E4M3;
      return result;
    };
    return {.k = scales(seen.cache.k), .v = scales(seen.cache.v)};
  }

  // As they are in the files: also those that an earlier run found.
  CacheScales written_scales(const std::vector<const PlannedUnit*>& units) const {
    const auto read = [&](const std::string& name) {
      const ConstTensor tensor = written_.tensor(name);
      std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
      std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(float));
      return values;
    };
    for (const PlannedUnit* unit : units) {
      if (!unit->attention.empty())
        return {.k = read(unit->attention + ".k_scale"), .v = read(unit->attention + ".v_scale")};
    }
    return {};
  }

  const CalibratedTask& task_;
  const QuantizePlan& plan_;
  ThreadPool& threads_;
  UnitWriter& units_;
  CpuBackend backend_;
  float headroom_;
  Json quantization_config_;
  QuantConfig quant_;
  SafetensorsFolder written_;
  Calibration calibration_;
  int64_t num_steps_;
};

}  // namespace

CalibratedFindings run_calibrated(const CalibratedTask& task, UnitWriter& units, ThreadPool& threads) {
  return CalibratedRun(task, units, threads).run();
}

}  // namespace octet
