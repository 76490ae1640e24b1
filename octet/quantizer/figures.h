// LinearFigures: what quantising one linear did to it. Part of the report, and of the journal, so that a resumed run
// reports what the earlier one measured.
#pragma once

#include <cstdint>
#include <string>

#include "octet/base/json.h"

namespace octet {

struct LinearFigures {
  std::string module;
  int64_t n = 0, k = 0;
  double weight_error = 0.0;  // sum (w - q * scale)^2 / sum w^2
  float smallest_scale = 0.0f, largest_scale = 0.0f;

  Json to_json() const;
  static LinearFigures from_json(const Json& json);
};

}  // namespace octet
