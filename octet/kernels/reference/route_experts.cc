#include <algorithm>
#include <cmath>

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

bool broken(const std::vector<float>& logits) {
  const float largest = *std::max_element(logits.begin(), logits.end(), [](float a, float b) { return a < b; });
  const bool has_nan = std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); });
  return has_nan || !std::isfinite(largest);
}

std::vector<float> scores_of(const std::vector<float>& logits, ExpertRouting::Scoring scoring) {
  std::vector<double> score(logits.begin(), logits.end());
  if (scoring == ExpertRouting::Scoring::kSigmoid) {
    for (double& s : score) s = 1.0 / (1.0 + std::exp(-s));
  } else {
    const double largest = *std::max_element(score.begin(), score.end());
    double sum = 0.0;
    for (double& s : score) sum += s = std::exp(s - largest);
    for (double& s : score) s /= sum;
  }
  return {score.begin(), score.end()};
}

// The first index of the largest of values[begin, end) that are not `taken`.
size_t best(const std::vector<float>& values, const std::vector<bool>& taken, size_t begin, size_t end) {
  size_t found = end;
  for (size_t i = begin; i < end; ++i) {
    if (!taken[i] && (found == end || values[i] > values[found])) found = i;
  }
  return found;
}

// Takes all experts out that are not in a chosen group.
void choose_groups(const ExpertRouting& routing, const std::vector<float>& choice, std::vector<bool>& taken) {
  const auto num_groups = static_cast<size_t>(routing.num_groups);
  const size_t size = choice.size() / num_groups;
  std::vector<float> group_score;
  for (size_t g = 0; g < num_groups; ++g) {
    std::vector<float> in_group(choice.begin() + static_cast<int64_t>(g * size),
                                choice.begin() + static_cast<int64_t>((g + 1) * size));
    std::sort(in_group.rbegin(), in_group.rend());
    const bool two = routing.group_score == ExpertRouting::GroupScore::kTwoLargest && size > 1;
    group_score.push_back(two ? in_group[0] + in_group[1] : in_group[0]);
  }
  std::vector<bool> chosen(num_groups, false);
  for (int64_t i = 0; i < routing.num_chosen_groups; ++i) chosen[best(group_score, chosen, 0, num_groups)] = true;
  for (size_t e = 0; e < choice.size(); ++e) taken[e] = !chosen[e / size];
}

void route(const RouteExpertsOp& op, int64_t t) {
  auto* ids = op.expert_ids.row<int32_t>(t);
  auto* weights = op.weights.row<float>(t);
  const auto k = static_cast<size_t>(op.num_slots());
  const std::vector<float> logits = read_row(op.x, t);
  if (broken(logits)) {
    for (size_t s = 0; s < k; ++s) ids[s] = static_cast<int32_t>(s);
    std::fill_n(weights, k, std::nanf(""));
    return;
  }
  const std::vector<float> score = scores_of(logits, op.routing.scoring);
  std::vector<float> choice = score;
  for (size_t e = 0; e < choice.size() && op.correction; ++e) choice[e] += op.correction.data<float>()[e];
  std::vector<bool> taken(choice.size(), false);
  if (op.routing.num_groups > 1) choose_groups(op.routing, choice, taken);
  double sum = 0.0;
  for (size_t s = 0; s < k; ++s) {
    const size_t e = best(choice, taken, 0, choice.size());
    taken[e] = true;
    ids[s] = static_cast<int32_t>(e);
    sum += score[e];
  }
  const bool renormalised = op.routing.weights == ExpertRouting::Weights::kRenormalised;
  const double divisor = renormalised ? sum + 1e-20 : 1.0;
  for (size_t s = 0; s < k; ++s) {
    weights[s] = static_cast<float>(score[static_cast<size_t>(ids[s])] / divisor *
                                    static_cast<double>(op.routing.scaling_factor));
  }
}

void plan(const RouteExpertsOp& op) {
  auto* offsets = op.plan.offsets.data<int32_t>();
  auto* order = op.plan.order.data<int32_t>();
  auto* rows = op.plan.rows.data<int32_t>();
  const int64_t num_rows = op.plan.order.dim(0), k = op.num_slots();
  std::fill_n(order, num_rows, -1);
  std::fill_n(rows, num_rows, -1);
  int32_t next = 0;
  for (int64_t e = 0; e < op.plan.num_experts(); ++e) {
    offsets[e] = next;
    for (int64_t i = 0; i < num_rows; ++i) {
      if (op.expert_ids.row<int32_t>(i / k)[i % k] != op.first_expert + e) continue;
      order[next] = static_cast<int32_t>(i);
      rows[i] = next++;
    }
  }
  offsets[op.plan.num_experts()] = next;
}

void run(const RouteExpertsOp& op, const Launch&) {
  for (int64_t t = 0; t < op.x.dim(0); ++t) route(op, t);
  plan(op);
}

}  // namespace

Kernel<RouteExpertsOp> reference_route_experts() {
  return {.name = "reference.route_experts",
          .declines = [](const RouteExpertsOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet
