#include "octet/layers/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "octet/base/error.h"
#include "octet/layers/linear.h"

namespace octet {
namespace {

// What all types start from: base^(2i / R), in F32 like torch's.
std::vector<float> position_frequencies(double base, int64_t rotated) {
  std::vector<float> values;
  for (int64_t i = 0; i < rotated / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotated);
    values.push_back(static_cast<float>(std::pow(base, static_cast<double>(exponent))));
  }
  return values;
}

// The scaling's fields, with Hugging Face's fall-backs.
struct Scaling {
  const ModelConfig& config;
  JsonObject fields;
  int64_t rotated;

  double positive(std::string_view key) const {
    const double value = fields.get_number(key);
    if (!(value > 0.0) || !std::isfinite(value))
      fail(ErrorCode::kModel, "{}: {}: {} is not positive", fields.where(), key, value);
    return value;
  }
  double positive_or(std::string_view key, double otherwise) const {
    return fields.find_number(key).has_value() ? positive(key) : otherwise;
  }
  double original_max() const {
    if (fields.find_raw("original_max_position_embeddings") != nullptr)
      return positive("original_max_position_embeddings");
    const JsonObject whole(config.json, config.path);
    const auto above = whole.find_int("original_max_position_embeddings");
    const int64_t length = above ? *above : config.max_position_embeddings;
    if (length <= 0) fail(ErrorCode::kModel, "{}: original_max_position_embeddings is missing", fields.where());
    return static_cast<double>(length);
  }
};

void scale_llama3(const Scaling& scaling, std::vector<float>& inv_freq) {
  const double factor = scaling.positive("factor");
  const double low = scaling.positive("low_freq_factor");
  const double high = scaling.positive("high_freq_factor");
  const double original = scaling.original_max();
  if (high <= low)
    fail(ErrorCode::kModel, "{}: high_freq_factor {} is not above low_freq_factor {}", scaling.fields.where(), high,
         low);
  for (float& frequency : inv_freq) {
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    if (wavelength < original / high) continue;
    if (wavelength > original / low) {
      frequency = static_cast<float>(frequency / factor);
    } else {
      const double smooth = (original / wavelength - low) / (high - low);
      frequency = static_cast<float>((1.0 - smooth) * frequency / factor + smooth * frequency);
    }
  }
}

double yarn_mscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

float yarn_attention_factor(const Scaling& scaling, double factor) {
  if (scaling.fields.find_number("attention_factor")) return static_cast<float>(scaling.positive("attention_factor"));
  const double mscale = scaling.fields.find_number("mscale").value_or(0.0);
  const double all_dim = scaling.fields.find_number("mscale_all_dim").value_or(0.0);
  if (mscale != 0.0 && all_dim != 0.0)
    return static_cast<float>(yarn_mscale(factor, mscale) / yarn_mscale(factor, all_dim));
  return static_cast<float>(yarn_mscale(factor, 1.0));
}

// Peng et al. 2023 (YaRN): interpolates slow dimensions, keeps fast ones, a linear ramp between them.
void scale_yarn(const Scaling& scaling, RopeFrequencies& result) {
  const double original = scaling.original_max();
  const double longest = static_cast<double>(scaling.config.max_position_embeddings);
  const double factor = scaling.positive_or("factor", longest / original);
  result.attention_factor = yarn_attention_factor(scaling, factor);
  const auto rotated = static_cast<double>(scaling.rotated);
  const double base = scaling.config.rope_theta;
  const auto dimension_of = [&](double rotations) {
    return rotated * std::log(original / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(base));
  };
  double low = dimension_of(scaling.positive_or("beta_fast", 32.0));
  double high = dimension_of(scaling.positive_or("beta_slow", 1.0));
  if (scaling.fields.find_bool("truncate").value_or(true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rotated - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < result.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double frequency = result.inv_freq[i];
    result.inv_freq[i] = static_cast<float>(frequency / factor * ramp + frequency * (1.0 - ramp));
  }
}

int64_t rotated_dim(const ModelConfig& config, const JsonObject& fields) {
  const JsonObject whole(config.json, config.path);
  std::optional<double> factor = fields.find_number("partial_rotary_factor");
  if (!factor) factor = whole.find_number("partial_rotary_factor");
  const auto rotated = static_cast<int64_t>(static_cast<double>(config.head_dim) * factor.value_or(1.0));
  if (rotated < 2 || rotated > config.head_dim || rotated % 2 != 0) {
    fail(ErrorCode::kModel,
         "{}: partial_rotary_factor: {} of {} dimensions of a head are rotated, expected an even number up to it",
         config.path, rotated, config.head_dim);
  }
  return rotated;
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config) {
  const bool scaled = config.rope_scaling.is_object();
  const std::string where = config.path + ": rope_scaling";
  const Json none = Json::object();
  const JsonObject fields(scaled ? config.rope_scaling : none, where);
  const Scaling scaling{.config = config, .fields = fields, .rotated = rotated_dim(config, fields)};
  std::string type = "default";
  if (const auto name = fields.find_string("rope_type")) {
    type = *name;
  } else if (const auto older = fields.find_string("type")) {
    type = *older;
  }
  RopeFrequencies result;
  for (const float value : position_frequencies(config.rope_theta, scaling.rotated))
    result.inv_freq.push_back(1.0f / value);
  if (type == "linear") {
    const auto factor = static_cast<float>(scaling.positive("factor"));
    for (float& frequency : result.inv_freq) frequency /= factor;
  } else if (type == "llama3") {
    scale_llama3(scaling, result.inv_freq);
  } else if (type == "yarn") {
    scale_yarn(scaling, result);
  } else if (type == "dynamic") {
    result.ntk_factor = static_cast<float>(scaling.positive("factor"));
    result.ntk_original_max = config.max_position_embeddings;
    if (scaling.rotated <= 2) fail(ErrorCode::kModel, "{}: dynamic needs a head_dim above 2", where);
  } else if (type != "default") {
    fail(ErrorCode::kUnsupported,
         "{}: rope_type \"{}\" is not supported; supported: default, linear, dynamic, yarn, llama3", where, type);
  }
  return result;
}

RotaryEmbedding::RotaryEmbedding(const ModelConfig& config, const Weights& weights)
    : frequencies_(rope_frequencies(config)) {
  const std::vector<float>& values = frequencies_.inv_freq;
  WeightSource& source = weights.source();
  const Tensor written = source.allocate(DType::kF32, Shape{static_cast<int64_t>(values.size())}, "rotary inv_freq");
  std::copy(values.begin(), values.end(), written.data<float>());
  inv_freq_ = source.place(written);
}

RopeAngles RotaryEmbedding::operator()(Step& step) const {
  const Shape shape{step.batch.num_tokens(), inv_freq_.dim(0)};
  const Tensor cos = step.arena.make(DType::kF32, shape);
  const Tensor sin = step.arena.make(DType::kF32, shape);
  step.backend(RopeTableOp{.cos = cos,
                           .sin = sin,
                           .positions = step.batch.positions,
                           .inv_freq = inv_freq_,
                           .attention_factor = frequencies_.attention_factor,
                           .ntk_factor = frequencies_.ntk_factor,
                           .ntk_original_max = frequencies_.ntk_original_max});
  return RopeAngles{.cos = cos, .sin = sin};
}

int64_t RotaryEmbedding::output_bytes(int64_t num_tokens) const {
  return 2 * arena_bytes(num_tokens * inv_freq_.dim(0));
}

}  // namespace octet
