#include "octet/quantizer/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "octet/base/error.h"
#include "octet/quantizer/expert_coverage.h"
#include "octet/quantizer/model_comparison.h"

namespace octet {
namespace {

constexpr int64_t kTokensPerStep = 2048;

int64_t count_beyond(ConstTensor x, float bound) {
  int64_t count = 0;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const float* row = x.row<float>(t);
    count += std::count_if(row, row + x.dim(1), [bound](float value) { return std::abs(value) > bound; });
  }
  return count;
}

// Whose input is the same tensor for all experts of a layer.
bool reads_hidden_state(const ExpertLinearName& name) {
  return name.leaf == "gate_proj" || name.leaf == "up_proj" || name.leaf == "w1" || name.leaf == "w3";
}

int64_t count_tokens(std::span<const SequenceBatch> batches) {
  int64_t tokens = 0;
  for (const SequenceBatch& batch : batches) tokens += batch.num_tokens();
  return tokens;
}

void take_maxima(const std::vector<float>& from, std::vector<float>& to) {
  to.resize(from.size(), 0.0f);
  for (size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

}  // namespace

Calibration::Calibration(const ModelConfig& config, const SafetensorsFolder& source, const QuantizePlan& plan,
                         const CalibrationText& text, ObservedExperts experts, ThreadPool& threads,
                         std::function<void()> on_step)
    : config_(config),
      source_(source),
      plan_(plan),
      text_(text),
      experts_(experts),
      backend_(threads),
      plain_(nullptr, {}, config.dtype),
      on_step_(std::move(on_step)),
      samples_(make_stream(text.samples)),
      held_out_(make_stream(text.held_out)),
      written_(make_stream(text.held_out)) {
  all_batches_ = samples_.batches;
  all_batches_.insert(all_batches_.end(), held_out_.batches.begin(), held_out_.batches.end());
  for (const PlannedUnit& unit : plan.units) {
    for (const PlannedLinear& part : unit.parts) units_.emplace(part.module, unit.name);
  }
}

int64_t Calibration::num_steps() const { return count_steps(text_, num_layers()); }

int64_t Calibration::count_steps(const CalibrationText& text, int64_t num_layers) {
  const size_t samples = batch_sequences(text.samples, kTokensPerStep).size();
  return static_cast<int64_t>(samples + 2 * batch_sequences(text.held_out, kTokensPerStep).size()) * num_layers;
}

Calibration::Stream Calibration::make_stream(const std::vector<std::vector<int32_t>>& sequences) const {
  for (const std::vector<int32_t>& sequence : sequences) {
    for (const int32_t id : sequence) {
      if (id < 0 || id >= config_.vocab_size) {
        fail(ErrorCode::kInvalid, "the calibration text has the token {}, the model's vocabulary {} tokens", id,
             config_.vocab_size);
      }
    }
  }
  Stream stream{.batches = batch_sequences(sequences, kTokensPerStep), .hidden = {}};
  for (const SequenceBatch& batch : stream.batches) {
    stream.hidden.emplace_back(Device{}, batch.num_tokens() * config_.hidden_size * int64_t{sizeof(float)},
                               "activations of the calibration text");
  }
  return stream;
}

Tensor Calibration::hidden(const Stream& stream, size_t batch) const {
  return stream.hidden[batch].tensor(DType::kF32, Shape{stream.batches[batch].num_tokens(), config_.hidden_size});
}

void Calibration::run(LayerRunner& runner, int64_t layer, Stream& stream, const LayerRunner::ObserveInput& observe,
                      const AfterStep& after, ObservedExperts experts) {
  for (size_t i = 0; i < stream.batches.size(); ++i) {
    const Tensor residual = hidden(stream, i);
    const ConstTensor result = runner.run(stream.batches[i], layer == 0 ? Tensor() : residual, observe, experts);
    if (result.bytes != residual.bytes)
      std::memcpy(residual.bytes, result.bytes, static_cast<size_t>(residual.num_bytes()));
    if (after) after(runner);
    on_step_();
  }
}

// "…self_attn.{q_proj,k_proj,v_proj}": the unit of its first part; empty when it is not quantised.
const std::string& Calibration::unit_of(std::string_view linear) const {
  static const std::string none;
  std::string name(linear);
  if (const size_t brace = name.find('{'); brace != std::string::npos)
    name = name.substr(0, brace) + name.substr(brace + 1, name.find_first_of(",}", brace) - brace - 1);
  const auto it = units_.find(name);
  return it == units_.end() ? none : it->second;
}

ObservedInput Calibration::make_input(int64_t num_channels) const {
  return {.statistics = InputStatistics(num_channels),
          .sample = InputSample(num_channels, count_tokens(samples_.batches)),
          .held_out = InputSample(num_channels, count_tokens(held_out_.batches)),
          .hessian = {}};
}

// What static scales hold. The experts of a layer read one tensor: their gates and ups share the largest of what any of
// them saw, as engines with one scale for all make of it anyway. Down of an expert that saw nothing, or nothing but
// zeros, has the largest of the same projection of the others. Baselines' tools do neither.
void Calibration::share_amax(int64_t layer, ObservedLayer& seen) const {
  for (auto& [unit, input] : seen.inputs) input.amax = input.statistics.amax();
  if (is_baseline(plan_.recipe)) return;
  const auto key_of = [](const ExpertLinearName& name) { return name.mixture + "." + name.leaf; };
  std::map<std::string, float> largest;
  for (const auto& [unit, input] : seen.inputs) {
    if (const auto name = expert_linear_name(unit)) {
      float& most = largest[key_of(*name)];
      most = std::max(most, input.amax);
    }
  }
  for (const PlannedUnit& unit : plan_.units) {
    const auto name = unit.parts.empty() || unit.layer != layer ? std::nullopt : expert_linear_name(unit.name);
    const auto most = name ? largest.find(key_of(*name)) : largest.end();
    if (most == largest.end()) continue;  // no expert, or none of the layer has seen anything
    ObservedInput& input = seen.inputs.try_emplace(unit.name, make_input(unit.parts[0].k)).first->second;
    if (reads_hidden_state(*name) || input.amax == 0.0f) input.amax = most->second;
  }
}

ObservedLayer Calibration::run_source(int64_t layer, Observe observe, float bound) {
  const bool observes = observe != Observe::kNothing;
  auto runner = std::make_unique<LayerRunner>(
      LayerSource{
          .config = &config_, .files = &source_, .quant = &plain_, .layers = {.begin = layer, .end = layer + 1}},
      backend_, all_batches_);
  ObservedLayer seen;
  const LayerRunner::ObserveInput take = [&](std::string_view linear, ConstTensor x) {
    const std::string& unit = unit_of(linear);
    if (unit.empty()) return;
    auto it = seen.inputs.find(unit);
    if (it == seen.inputs.end()) it = seen.inputs.emplace(unit, make_input(x.dim(1))).first;
    ObservedInput& input = it->second;
    input.statistics.add(x);
    input.sample.add(x);
    if (observe != Observe::kHessians) return;
    if (!input.hessian) input.hessian.emplace(x.dim(1));
    input.hessian->add(*backend_, x);
  };
  const LayerRunner::ObserveInput judge = [&](std::string_view linear, ConstTensor x) {
    const auto it = seen.inputs.find(unit_of(linear));
    if (it == seen.inputs.end()) return;
    it->second.held_out.add(x);
    it->second.num_beyond += count_beyond(x, it->second.amax * bound);
  };
  const AfterStep take_cache = [&](const LayerRunner& after) {
    if (!observes) return;
    const LayerRunner::CacheMaxima maxima = after.cache_maxima();
    take_maxima(maxima.k, seen.cache.k);
    take_maxima(maxima.v, seen.cache.v);
  };
  run(*runner, layer, samples_, observes ? take : nullptr, take_cache, experts_);
  share_amax(layer, seen);
  run(*runner, layer, held_out_, observes ? judge : nullptr, nullptr);
  if (layer + 1 == num_layers()) last_ = std::move(runner);
  return seen;
}

double Calibration::run_written(int64_t layer, const SafetensorsFolder& written, const QuantConfig& quant,
                                const CacheScales& scales) {
  const bool one_scale = scales.k.size() == 1;  // the cache has no scales per head yet: it stays in F32 then
  LayerRunner runner(LayerSource{.config = &config_,
                                 .files = &written,
                                 .quant = &quant,
                                 .layers = {.begin = layer, .end = layer + 1},
                                 .kv_dtype = one_scale ? DType::kF8E4M3 : DType::kF32,
                                 .k_scale = one_scale ? scales.k[0] : 1.0f,
                                 .v_scale = one_scale ? scales.v[0] : 1.0f},
                     backend_, held_out_.batches);
  run(runner, layer, written_, nullptr, nullptr);
  return drift();
}

double Calibration::drift() const {
  double error = 0.0, sum = 0.0;
  for (size_t i = 0; i < held_out_.batches.size(); ++i) {
    const Tensor a = hidden(held_out_, i), b = hidden(written_, i);
    for (int64_t j = 0; j < a.num_elements(); ++j) {
      const double expected = static_cast<double>(a.data<float>()[j]);
      const double difference = static_cast<double>(b.data<float>()[j]) - expected;
      error += difference * difference;
      sum += expected * expected;
    }
  }
  return sum > 0.0 ? error / sum : 0.0;
}

ModelFigures Calibration::compare() {
  OCTET_CHECK(last_ != nullptr);
  ModelComparison comparison(config_.vocab_size, backend_.threads());
  for (size_t i = 0; i < held_out_.batches.size(); ++i) {
    const Tensor expected = hidden(held_out_, i), found = hidden(written_, i);
    int64_t first = 0;
    for (const std::vector<int32_t>& sequence : held_out_.batches[i].sequences) {
      const auto length = static_cast<int64_t>(sequence.size());
      for (int64_t begin = 0; begin < length; begin += LayerRunner::kMaxLogitRows) {
        const int64_t count = std::min(LayerRunner::kMaxLogitRows, length - begin);
        comparison.set_expected(last_->logits(expected.rows(first + begin, count)));
        comparison.add(last_->logits(found.rows(first + begin, count)), sequence, begin);
      }
      comparison.end_sample();
      first += length;
    }
  }
  return comparison.figures();
}

}  // namespace octet
