#include "octet/quantizer/figures.h"

#include "octet/base/error.h"

namespace octet {

Json LinearFigures::to_json() const {
  Json json = {{"module", module},
               {"shape", {n, k}},
               {"weight_error", weight_error},
               {"smallest_scale", smallest_scale},
               {"largest_scale", largest_scale},
               {"scheme", scheme}};
  if (smoothing) json["smoothing"] = *smoothing;
  if (folded) json["folded"] = true;
  if (!calibrated) return json;
  const auto measured = [this](double value) { return calibrated->num_measured > 0 ? Json(value) : Json(); };
  json["num_tokens"] = calibrated->num_tokens;
  json["input_amax"] = calibrated->input_amax;
  json["input_rms"] = calibrated->input_rms;
  json["input_scale"] = calibrated->input_scale ? Json(*calibrated->input_scale) : Json();
  json["num_measured"] = calibrated->num_measured;
  json["saturated"] = measured(calibrated->saturated);
  json["output_error"] = measured(calibrated->output_error);
  json["rounded_output_error"] = measured(calibrated->rounded_output_error);
  return json;
}

LinearFigures LinearFigures::from_json(const Json& json) try {
  LinearFigures figures{.module = json.at("module").get<std::string>(),
                        .n = json.at("shape").at(0).get<int64_t>(),
                        .k = json.at("shape").at(1).get<int64_t>(),
                        .weight_error = json.at("weight_error").get<double>(),
                        .smallest_scale = json.at("smallest_scale").get<float>(),
                        .largest_scale = json.at("largest_scale").get<float>(),
                        .scheme = json.at("scheme").get<std::string>(),
                        .folded = json.contains("folded")};
  if (json.contains("smoothing")) figures.smoothing = json.at("smoothing").get<double>();
  if (!json.contains("input_amax")) return figures;
  const auto number = [&json](const char* key) { return json.at(key).is_null() ? 0.0 : json.at(key).get<double>(); };
  CalibratedFigures calibrated{.num_tokens = json.at("num_tokens").get<int64_t>(),
                               .input_amax = json.at("input_amax").get<float>(),
                               .input_rms = json.at("input_rms").get<double>(),
                               .num_measured = json.at("num_measured").get<int64_t>(),
                               .saturated = number("saturated"),
                               .output_error = number("output_error"),
                               .rounded_output_error = number("rounded_output_error")};
  if (const Json& scale = json.at("input_scale"); !scale.is_null()) calibrated.input_scale = scale.get<float>();
  figures.calibrated = calibrated;
  return figures;
} catch (const Json::exception& error) {
  fail(ErrorCode::kInvalid, "figures of a linear as to_json() writes them expected: {}", error.what());
}

Json LayerFigures::to_json() const {
  Json json = {{"layer", layer}, {"drift", drift}};
  if (!k_scales.empty()) json.update({{"k_scales", k_scales}, {"v_scales", v_scales}});
  return json;
}

Json ModelFigures::to_json() const {
  return {{"kl_divergence", kl_mean},          {"kl_divergence_interval", {kl_low, kl_high}},
          {"kl_divergence_median", kl_median}, {"kl_divergence_p99", kl_p99},
          {"kl_divergence_max", kl_max},       {"top1_agreement", top1_agreement},
          {"perplexity", perplexity},          {"source_perplexity", source_perplexity},
          {"num_tokens", num_tokens},          {"num_samples", num_samples}};
}

}  // namespace octet
