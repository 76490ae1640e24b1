// How weights are rounded, beyond scales from the largest magnitude and rounding to the nearest.
#pragma once

#include <string>

#include "octet/base/error.h"

namespace octet {

enum class Recipe : uint8_t {
  kNearest,
  kFast,  // scales are searched for (scale_search.h)
  kBest,  // and errors of rounding are made up for by later columns (gptq.h)
};

// "", "fast", "best". Throws Error{kUsage}.
inline Recipe parse_recipe(const std::string& name) {
  if (name.empty()) return Recipe::kNearest;
  if (name == "fast") return Recipe::kFast;
  if (name == "best") return Recipe::kBest;
  fail(ErrorCode::kUsage, "recipe \"{}\": expected fast or best", name);
}

}  // namespace octet
