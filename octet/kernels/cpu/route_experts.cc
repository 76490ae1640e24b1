// Routing for every processor: tokens shared among threads, then one pass that counts rows and one that places them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "octet/kernels/cpu/cpu.h"
#include "octet/kernels/cpu/split.h"

namespace octet {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Scores of a row; false when the row is broken.
bool find_scores(const float* logits, int64_t count, ExpertRouting::Scoring scoring, float* score) {
  float largest = kLowest;
  bool has_nan = false;
  for (int64_t e = 0; e < count; ++e) {
    largest = std::max(largest, logits[e]);
    has_nan |= std::isnan(logits[e]);
  }
  if (has_nan || !std::isfinite(largest)) return false;
  if (scoring == ExpertRouting::Scoring::kSigmoid) {
    for (int64_t e = 0; e < count; ++e)
      score[e] = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(logits[e]))));
    return true;
  }
  const auto power = [&](int64_t e) { return std::exp(static_cast<double>(logits[e]) - static_cast<double>(largest)); };
  double sum = 0.0;
  for (int64_t e = 0; e < count; ++e) sum += power(e);
  for (int64_t e = 0; e < count; ++e) score[e] = static_cast<float>(power(e) / sum);
  return true;
}

// The indices of the k largest values, best first, of equal ones the lowest first; never one that is minus infinity
// while there are others.
void find_largest(const float* values, int64_t count, int64_t k, int32_t* indices) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t place = found;
    while (place > 0 && values[i] > values[indices[place - 1]]) --place;
    if (place == k) continue;
    found = std::min(found + 1, k);
    for (int64_t j = found - 1; j > place; --j) indices[j] = indices[j - 1];
    indices[place] = static_cast<int32_t>(i);
  }
}

// Choices outside the chosen groups become minus infinity.
void keep_chosen_groups(const ExpertRouting& routing, std::vector<float>& choice) {
  const int64_t groups = routing.num_groups, size = static_cast<int64_t>(choice.size()) / groups;
  std::vector<float> score(static_cast<size_t>(groups));
  std::vector<int32_t> chosen(static_cast<size_t>(routing.num_chosen_groups));
  for (int64_t g = 0; g < groups; ++g) {
    float first = kLowest, second = kLowest;
    for (int64_t e = g * size; e < (g + 1) * size; ++e) {
      const float value = choice[static_cast<size_t>(e)];
      second = std::max(second, std::min(first, value));
      first = std::max(first, value);
    }
    const bool two = routing.group_score == ExpertRouting::GroupScore::kTwoLargest && size > 1;
    score[static_cast<size_t>(g)] = two ? first + second : first;
  }
  find_largest(score.data(), groups, routing.num_chosen_groups, chosen.data());
  for (int64_t g = 0; g < groups; ++g) {
    if (std::find(chosen.begin(), chosen.end(), g) == chosen.end())
      std::fill_n(choice.begin() + g * size, size, kLowest);
  }
}

void route_token(const RouteExpertsOp& op, int64_t t) {
  const int64_t count = op.num_experts(), k = op.num_slots();
  auto* ids = op.expert_ids.row<int32_t>(t);
  auto* weights = op.weights.row<float>(t);
  std::vector<float> score(static_cast<size_t>(count));
  if (!find_scores(op.x.row<float>(t), count, op.routing.scoring, score.data())) {
    for (int64_t s = 0; s < k; ++s) ids[s] = static_cast<int32_t>(s);
    std::fill_n(weights, k, std::nanf(""));
    return;
  }
  std::vector<float> choice = score;
  for (int64_t e = 0; e < count && op.correction; ++e) choice[static_cast<size_t>(e)] += op.correction.data<float>()[e];
  if (op.routing.num_groups > 1) keep_chosen_groups(op.routing, choice);
  find_largest(choice.data(), count, k, ids);
  double sum = 1e-20;
  for (int64_t s = 0; s < k; ++s) sum += static_cast<double>(score[static_cast<size_t>(ids[s])]);
  const double divisor = op.routing.weights == ExpertRouting::Weights::kRenormalised ? sum : 1.0;
  for (int64_t s = 0; s < k; ++s) {
    weights[s] = static_cast<float>(static_cast<double>(score[static_cast<size_t>(ids[s])]) / divisor *
                                    static_cast<double>(op.routing.scaling_factor));
  }
}

// A stable sort of tokens and slots by expert.
void make_plan(const RouteExpertsOp& op) {
  auto* offsets = op.plan.offsets.data<int32_t>();
  auto* order = op.plan.order.data<int32_t>();
  auto* rows = op.plan.rows.data<int32_t>();
  const int64_t num_experts = op.plan.num_experts(), num_rows = op.plan.order.dim(0), k = op.num_slots();
  const auto expert_of = [&](int64_t i) { return op.expert_ids.row<int32_t>(i / k)[i % k] - op.first_expert; };
  std::fill_n(offsets, num_experts + 1, 0);
  for (int64_t i = 0; i < num_rows; ++i) {
    if (const int64_t e = expert_of(i); e >= 0 && e < num_experts) ++offsets[e + 1];
  }
  for (int64_t e = 0; e < num_experts; ++e) offsets[e + 1] += offsets[e];
  std::fill_n(order, num_rows, -1);
  std::vector<int32_t> next(offsets, offsets + num_experts);
  for (int64_t i = 0; i < num_rows; ++i) {
    rows[i] = -1;
    const int64_t e = expert_of(i);
    if (e < 0 || e >= num_experts) continue;
    rows[i] = next[static_cast<size_t>(e)]++;
    order[rows[i]] = static_cast<int32_t>(i);
  }
}

std::string declines(const RouteExpertsOp&, const Launch&) { return {}; }

void run(const RouteExpertsOp& op, const Launch& launch) {
  constexpr int64_t kElementsPerScore = 32;  // what an exponential costs, in elements of a simple pass
  for_rows(launch, op.x.dim(0), op.num_experts() * kElementsPerScore, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) route_token(op, t);
  });
  make_plan(op);
}

}  // namespace

Kernel<RouteExpertsOp> cpu_route_experts() { return {.name = "cpu.route_experts", .declines = &declines, .run = &run}; }

}  // namespace octet
