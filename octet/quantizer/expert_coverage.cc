#include "octet/quantizer/expert_coverage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

namespace octet {
namespace {

constexpr size_t kMostListed = 16;

std::vector<int64_t> sorted_counts(const ExpertCoverage& coverage) {
  std::vector<int64_t> counts;
  for (const auto& [expert, count] : coverage.num_tokens) counts.push_back(count);
  std::sort(counts.begin(), counts.end());
  return counts;
}

// Those with at least `least` and fewer than `bound` tokens.
std::vector<int64_t> experts_within(const ExpertCoverage& coverage, int64_t least, int64_t bound) {
  std::vector<int64_t> experts;
  for (const auto& [expert, count] : coverage.num_tokens) {
    if (count >= least && count < bound) experts.push_back(expert);
  }
  return experts;
}

}  // namespace

std::optional<ExpertLinearName> expert_linear_name(std::string_view module) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = module.rfind(kExperts);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view below = module.substr(at + kExperts.size());
  ExpertLinearName name{.mixture = std::string(module.substr(0, at + kExperts.size() - 1)), .leaf = {}};
  const auto [after, error] = std::from_chars(below.data(), below.data() + below.size(), name.expert);
  const auto digits = static_cast<size_t>(after - below.data());
  if (error != std::errc() || name.expert < 0 || digits == below.size() || below[digits] != '.') return std::nullopt;
  name.leaf = below.substr(digits + 1);
  return name;
}

int64_t ExpertCoverage::least() const { return sorted_counts(*this).front(); }
int64_t ExpertCoverage::median() const { return sorted_counts(*this)[num_tokens.size() / 2]; }
int64_t ExpertCoverage::most() const { return sorted_counts(*this).back(); }
std::vector<int64_t> ExpertCoverage::without_tokens() const { return experts_within(*this, 0, 1); }
std::vector<int64_t> ExpertCoverage::with_few_tokens() const { return experts_within(*this, 1, kFewTokens); }

Json ExpertCoverage::to_json() const {
  return {{"module", mixture},
          {"num_experts", num_tokens.size()},
          {"least", least()},
          {"median", median()},
          {"most", most()},
          {"without_tokens", without_tokens()},
          {"with_few_tokens", with_few_tokens()},
          {"few_tokens", kFewTokens}};
}

void count_expert(std::vector<ExpertCoverage>& coverage, std::string_view module, int64_t num_tokens) {
  const auto name = expert_linear_name(module);
  if (!name) return;
  auto it = std::find_if(coverage.begin(), coverage.end(),
                         [&](const ExpertCoverage& mixture) { return mixture.mixture == name->mixture; });
  if (it == coverage.end()) it = coverage.insert(it, {.mixture = name->mixture, .num_tokens = {}});
  it->num_tokens[name->expert] = num_tokens;  // the same of all linears of an expert
}

std::vector<ExpertCoverage> expert_coverage(std::span<const LinearFigures> linears) {
  std::vector<ExpertCoverage> all;
  for (const LinearFigures& figures : linears) {
    if (figures.calibrated) count_expert(all, figures.module, figures.calibrated->num_tokens);
  }
  return all;
}

std::string list_experts(std::span<const int64_t> experts) {
  const size_t listed = std::min(experts.size(), kMostListed);
  std::string text = fmt::format("{}", fmt::join(experts.subspan(0, listed), ", "));
  if (listed < experts.size()) text += fmt::format(" and {} more", experts.size() - listed);
  return text;
}

}  // namespace octet
