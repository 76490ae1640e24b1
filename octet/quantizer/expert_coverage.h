// ExpertCoverage: how many tokens of the calibration text each expert of a mixture saw. A router sends few to some of
// them, and what is found from few tokens is worth little: the report says of which experts that is so.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/quantizer/figures.h"

namespace octet {

// "model.layers.0.mlp.experts.3.gate_proj".
struct ExpertLinearName {
  std::string mixture;  // "model.layers.0.mlp.experts"
  int64_t expert = 0;
  std::string leaf;  // "gate_proj"
};
// nullopt: a module that belongs to no numbered expert.
std::optional<ExpertLinearName> expert_linear_name(std::string_view module);

struct ExpertCoverage {
  // An expert that saw fewer is named in the report.
  static constexpr int64_t kFewTokens = 128;

  std::string mixture;
  std::map<int64_t, int64_t> num_tokens;  // by expert; of those that are quantised

  int64_t least() const;
  int64_t median() const;  // of an even number the larger of the two in the middle
  int64_t most() const;
  std::vector<int64_t> without_tokens() const;
  std::vector<int64_t> with_few_tokens() const;  // some, but fewer than kFewTokens
  Json to_json() const;
};

// What one linear saw, into the coverage of its mixture; nothing when it is no expert's.
void count_expert(std::vector<ExpertCoverage>& coverage, std::string_view module, int64_t num_tokens);
// Of every mixture whose experts are among `linears`, which are of a calibrated run, in their order.
std::vector<ExpertCoverage> expert_coverage(std::span<const LinearFigures> linears);

// "3, 7, 12": the first sixteen, and how many more.
std::string list_experts(std::span<const int64_t> experts);

}  // namespace octet
