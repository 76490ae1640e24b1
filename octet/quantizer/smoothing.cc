#include "octet/quantizer/smoothing.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "octet/base/error.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/unit_trial.h"

namespace octet {
namespace {

constexpr std::array<double, 7> kStrengths = {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
constexpr double kLeastGain = 0.98;  // of the error without: less is noise of the rows that were tried
constexpr float kMostFactor = 1024.0f;

// Whose layers are: x += o(attention(q, k, v of norm(x))), x += down(act(gate) * up of norm(x)), norms multiply by
// their weight.
constexpr std::array<std::string_view, 4> kLikeLlama = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                                                        "Qwen3ForCausalLM"};

const PlannedUnit* unit_with(const QuantizePlan& plan, const std::string& prefix,
                             std::initializer_list<std::string_view> leaves) {
  for (const PlannedUnit& unit : plan.units) {
    if (unit.parts.size() != leaves.size()) continue;
    const bool all = std::all_of(leaves.begin(), leaves.end(), [&](std::string_view leaf) {
      return std::any_of(unit.parts.begin(), unit.parts.end(), [&](const PlannedLinear& part) {
        return part.module.size() == prefix.size() + leaf.size() && part.module.starts_with(prefix) &&
               part.module.ends_with(leaf);
      });
    });
    if (all) return &unit;
  }
  return nullptr;
}

// Brings a norm's factors to where weight / factor is a number of the weight's dtype.
void make_exact(ConstTensor norm, std::vector<float>& factors) {
  std::vector<std::byte> bytes(static_cast<size_t>(dtype_bytes(norm.dtype)));
  const Tensor rounded(bytes.data(), norm.dtype, Shape{1, 1});
  const ConstTensor column = norm.reshape(Shape{norm.num_elements(), 1});
  for (size_t k = 0; k < factors.size(); ++k) {
    float weight = 0.0f, divided = 0.0f;
    read_weight_row(column, static_cast<int64_t>(k), std::span(&weight, 1));
    divided = weight / factors[k];
    write_weight_row(rounded, 0, std::span(&divided, 1));
    read_weight_row(rounded, 0, std::span(&divided, 1));
    const float exact = weight / divided;
    factors[k] = std::isnormal(exact) && exact > 0.0f ? exact : 1.0f;
  }
}

// The output channels of v_proj whose values come to o_proj's channels.
std::vector<float> rows_of_values(const std::vector<float>& factors, const FoldPlace& place) {
  if (place.head_dim == 0) return factors;
  std::vector<float> rows;
  const auto dim = static_cast<size_t>(place.head_dim), stride = dim * static_cast<size_t>(place.group);
  for (size_t head = 0; head < factors.size(); head += stride)
    rows.insert(rows.end(), factors.begin() + static_cast<int64_t>(head),
                factors.begin() + static_cast<int64_t>(head + dim));
  return rows;
}

void add_to(Folds& folds, const SafetensorsFolder& source, const FoldPlace& place, const std::vector<float>& factors) {
  for (const PlannedLinear& part : place.consumer->parts) folds[part.weight()].columns = factors;
  if (!place.norm.empty()) {
    folds[place.norm].rows = factors;
    return;
  }
  const std::vector<float> rows = rows_of_values(factors, place);
  folds[place.producer + ".weight"].rows = rows;
  if (source.find(place.producer + ".bias") != nullptr) folds[place.producer + ".bias"].rows = rows;
}

void divide(ObservedInput& input, std::span<const float> by) {
  input.statistics.divide(by);
  input.sample.divide(by);
  input.held_out.divide(by);
  if (input.hessian) input.hessian->divide(by);
}

}  // namespace

Smoothing parse_smoothing(const std::string& text) {
  if (text.empty() || text == "off") return {};
  if (text == "auto") return {.kind = Smoothing::Kind::kAuto};
  double strength = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), strength);
  if (error != std::errc() || end != text.data() + text.size() || !(strength >= 0.0 && strength <= 1.0))
    fail(ErrorCode::kUsage, "smooth \"{}\": expected off, auto or a number from 0 to 1", text);
  return {.kind = Smoothing::Kind::kFixed, .strength = strength};
}

std::vector<FoldPlace> fold_places(const QuantizePlan& plan, const ModelConfig& config, const SafetensorsFolder& source,
                                   int64_t layer) {
  std::vector<FoldPlace> places;
  if (std::find(kLikeLlama.begin(), kLikeLlama.end(), config.architecture) == kLikeLlama.end()) return places;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const PlannedUnit* qkv = unit_with(plan, attention, {"q_proj", "k_proj", "v_proj"});
  const PlannedUnit* o = unit_with(plan, attention, {"o_proj"});
  const PlannedUnit* gate_up = unit_with(plan, mlp, {"gate_proj", "up_proj"});
  const PlannedUnit* down = unit_with(plan, mlp, {"down_proj"});
  // Linears' rows first, so that a norm's factors are found for the rows as they will be. Scales of an 8-bit cache are
  // those of the values as they are.
  if (o != nullptr && qkv != nullptr && !plan.quant.kv_cache) {
    places.push_back({.consumer = o,
                      .producer = attention + "v_proj",
                      .head_dim = config.head_dim,
                      .group = config.num_attention_heads / config.num_key_value_heads});
  }
  if (down != nullptr && gate_up != nullptr) places.push_back({.consumer = down, .producer = mlp + "up_proj"});
  const std::pair<const PlannedUnit*, std::string> norms[] = {{qkv, prefix + "input_layernorm.weight"},
                                                              {gate_up, prefix + "post_attention_layernorm.weight"}};
  for (const auto& [unit, norm] : norms) {
    if (unit != nullptr && source.find(norm) != nullptr) places.push_back({.consumer = unit, .norm = norm});
  }
  return places;
}

std::vector<float> smoothing_factors(std::span<const float> x_amax, std::span<const float> w_amax, double strength,
                                     const FoldPlace& place) {
  std::vector<float> x(x_amax.begin(), x_amax.end()), w(w_amax.begin(), w_amax.end());
  if (place.head_dim > 0) {  // what reads the same values shares its factor
    const auto dim = static_cast<size_t>(place.head_dim), group = static_cast<size_t>(place.group);
    for (size_t first = 0; first < x.size(); first += dim * group) {
      for (size_t d = first; d < first + dim; ++d) {
        for (size_t head = 1; head < group; ++head) {
          x[d] = std::max(x[d], x[d + head * dim]);
          w[d] = std::max(w[d], w[d + head * dim]);
        }
        for (size_t head = 1; head < group; ++head) {
          x[d + head * dim] = x[d];
          w[d + head * dim] = w[d];
        }
      }
    }
  }
  std::vector<double> logs(x.size(), std::nan(""));
  double sum = 0.0, count = 0.0;
  for (size_t k = 0; k < x.size(); ++k) {
    if (!(x[k] > 0.0f && w[k] > 0.0f)) continue;
    logs[k] = strength * std::log2(static_cast<double>(x[k])) - (1.0 - strength) * std::log2(static_cast<double>(w[k]));
    sum += logs[k];
    count += 1.0;
  }
  std::vector<float> factors(x.size(), 1.0f);
  for (size_t k = 0; k < x.size(); ++k) {
    if (!std::isnan(logs[k]))
      factors[k] = std::clamp(static_cast<float>(std::exp2(logs[k] - sum / count)), 1.0f / kMostFactor, kMostFactor);
  }
  return factors;
}

FoundStrength find_strength(const Smoothing& smoothing, const FoldPlace& place, const NamedScheme& scheme,
                            const UnitTrial& trial, std::span<const float> x_amax, const SafetensorsFolder& source,
                            ThreadPool& threads) {
  const std::vector<float> w_amax = trial.column_amax();
  const auto factors_of = [&](double strength) {
    std::vector<float> factors = smoothing_factors(x_amax, w_amax, strength, place);
    if (!place.norm.empty()) make_exact(SourceTensor(source, place.norm, threads).matrix(), factors);
    return factors;
  };
  if (smoothing.kind == Smoothing::Kind::kFixed) {
    const std::vector<float> factors = factors_of(smoothing.strength);
    return {.strength = smoothing.strength, .factors = factors, .error = trial.error(scheme, factors)};
  }
  FoundStrength found{.strength = {}, .factors = {}, .error = trial.error(scheme)};
  double least = kLeastGain * found.error;
  for (const double strength : kStrengths) {
    std::vector<float> factors = factors_of(strength);
    const double error = trial.error(scheme, factors);
    if (!(error < least)) continue;
    least = error;
    found = {.strength = strength, .factors = std::move(factors), .error = error};
  }
  return found;
}

SmoothedLayer smooth_layer(const Smoothing& smoothing, const std::vector<FoldPlace>& places,
                           const SafetensorsFolder& source, const Backend& backend, ThreadPool& threads,
                           ObservedLayer& seen) {
  SmoothedLayer layer;
  for (const FoldPlace& place : places) {
    const PlannedUnit& unit = *place.consumer;
    const auto it = seen.inputs.find(unit.name);
    if (it == seen.inputs.end()) continue;
    ObservedInput& input = it->second;
    FoundStrength found;
    {
      const UnitTrial trial(backend, unit, source, layer.folds, input.sample.rows(), threads);
      found = find_strength(smoothing, place, unit.scheme, trial, input.statistics.channel_amax(), source, threads);
    }
    if (!found.strength) continue;
    add_to(layer.folds, source, place, found.factors);
    divide(input, found.factors);
    layer.strengths.emplace(unit.name, *found.strength);
  }
  return layer;
}

}  // namespace octet
