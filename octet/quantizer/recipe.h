// How weights are rounded, beyond scales from the largest magnitude and rounding to the nearest.
#pragma once

#include <string>

#include "octet/base/error.h"

namespace octet {

enum class Recipe : uint8_t {
  kNearest,
  kFast,  // scales are searched for (scale_search.h)
  kBest,  // and errors of rounding are made up for by later columns (gptq.h)
  // What others' tools compute, to be measured against (baseline_rounding.h).
  kBaselineAutoFp8,
  kBaselineLlmc,
  kBaselineLlmcGptq,
};

// "", "fast", "best", "baseline-autofp8", "baseline-llmc", "baseline-llmc-gptq". Throws Error{kUsage}.
inline Recipe parse_recipe(const std::string& name) {
  if (name.empty()) return Recipe::kNearest;
  if (name == "fast") return Recipe::kFast;
  if (name == "best") return Recipe::kBest;
  if (name == "baseline-autofp8") return Recipe::kBaselineAutoFp8;
  if (name == "baseline-llmc") return Recipe::kBaselineLlmc;
  if (name == "baseline-llmc-gptq") return Recipe::kBaselineLlmcGptq;
  fail(ErrorCode::kUsage,
       "recipe \"{}\": expected fast or best, or baseline-autofp8, baseline-llmc, baseline-llmc-gptq to compare with",
       name);
}

inline bool searches_scales(Recipe recipe) { return recipe == Recipe::kFast || recipe == Recipe::kBest; }
// Whether it needs the products of a linear's inputs.
inline bool needs_hessian(Recipe recipe) { return recipe == Recipe::kBest || recipe == Recipe::kBaselineLlmcGptq; }
inline bool is_baseline(Recipe recipe) { return recipe >= Recipe::kBaselineAutoFp8; }

}  // namespace octet
