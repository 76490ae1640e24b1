#include "octet/quantizer/figures.h"

namespace octet {

Json LinearFigures::to_json() const {
  return {{"module", module},
          {"shape", {n, k}},
          {"weight_error", weight_error},
          {"smallest_scale", smallest_scale},
          {"largest_scale", largest_scale}};
}

LinearFigures LinearFigures::from_json(const Json& json) {
  return {.module = json.at("module").get<std::string>(),
          .n = json.at("shape").at(0).get<int64_t>(),
          .k = json.at("shape").at(1).get<int64_t>(),
          .weight_error = json.at("weight_error").get<double>(),
          .smallest_scale = json.at("smallest_scale").get<float>(),
          .largest_scale = json.at("largest_scale").get<float>()};
}

}  // namespace octet
