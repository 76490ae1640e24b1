#include "octet/sampling/selection.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace octet {
namespace {

bool likelier(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.token_id < b.token_id);
}

// A value that at least k values of the row reach: the k-th largest of the blocks' maxima.
float lower_bound_of_top_k(int64_t k, SamplingScratch& scratch) {
  if (k > static_cast<int64_t>(scratch.block_max.size())) return kMinusInfinity;
  scratch.values = scratch.block_max;
  const auto kth = scratch.values.begin() + (k - 1);
  std::nth_element(scratch.values.begin(), kth, scratch.values.end(), std::greater<>());
  return *kth;
}

// All values >= bound, in the order of token ids. scratch.block_max must be those of the row.
void collect(std::span<const float> row, float bound, SamplingScratch& scratch, std::vector<Candidate>& out) {
  out.clear();
  for (size_t block = 0; block < scratch.block_max.size(); ++block) {
    if (scratch.block_max[block] < bound) continue;
    const size_t end = std::min(row.size(), (block + 1) * kRowBlock);
    for (size_t i = block * kRowBlock; i < end; ++i) {
      if (row[i] >= bound && row[i] > kMinusInfinity) out.push_back({row[i], static_cast<int32_t>(i)});
    }
  }
}

void keep_top_k(int64_t k, SamplingScratch& scratch) {
  std::vector<Candidate>& candidates = scratch.candidates;
  if (k >= static_cast<int64_t>(candidates.size())) return;
  scratch.values.clear();
  for (const Candidate& candidate : candidates) scratch.values.push_back(candidate.value);
  const auto kth = scratch.values.begin() + (k - 1);
  std::nth_element(scratch.values.begin(), kth, scratch.values.end(), std::greater<>());
  const float bound = *kth;
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.value < bound; });
}

struct Softmax {
  float max;
  float scale;  // 1 / temperature
  double weight(float value) const { return fast_exp((value - max) * scale); }
};

double total_weight(std::span<const Candidate> candidates, const Softmax& softmax) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += softmax.weight(candidate.value);
  return total;
}

// Keeps the likeliest candidates whose weights reach `target`. Halves the range in which the last of them lies, each
// time by partial selection, so that the work is linear in the number of candidates.
void keep_top_p(double target, const Softmax& softmax, SamplingScratch& scratch) {
  std::vector<Candidate>& order = scratch.sorted;
  order = scratch.candidates;
  auto begin = order.begin(), end = order.end();
  double before = 0.0;
  while (end - begin > 32) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, likelier);
    double half = 0.0;
    for (auto it = begin; it != middle; ++it) half += softmax.weight(it->value);
    if (before + half >= target) {
      end = middle;
    } else {
      before += half;
      begin = middle;
    }
  }
  std::sort(begin, end, likelier);
  auto last = begin;
  for (before += softmax.weight(last->value); before < target && last + 1 != end; before += softmax.weight(last->value))
    ++last;
  const Candidate worst = *last;
  std::erase_if(scratch.candidates, [&](const Candidate& candidate) { return likelier(worst, candidate); });
}

int32_t draw(std::span<const Candidate> candidates, const Softmax& softmax, double uniform) {
  double remaining = uniform * total_weight(candidates, softmax);
  int32_t token_id = candidates.front().token_id;
  for (const Candidate& candidate : candidates) {
    const double weight = softmax.weight(candidate.value);
    if (weight > 0.0) token_id = candidate.token_id;
    if (remaining < weight) break;
    remaining -= weight;
  }
  return token_id;
}

int32_t draw_from_all(std::span<const float> row, const Softmax& softmax, double uniform, SamplingScratch& scratch) {
  scratch.weights.resize(row.size());
  double remaining = uniform * row_exp(row, softmax.max, softmax.scale, scratch.weights, scratch.block_sums);
  size_t block = 0;
  while (block + 1 < scratch.block_sums.size() && remaining >= scratch.block_sums[block])
    remaining -= scratch.block_sums[block++];
  // Rounding may leave a remainder at the very end; the last token of positive weight takes it.
  int32_t token_id = -1;
  for (size_t i = block * kRowBlock; i < row.size(); ++i) {
    if (scratch.weights[i] <= 0.0f) continue;
    token_id = static_cast<int32_t>(i);
    if (remaining < scratch.weights[i]) break;
    remaining -= scratch.weights[i];
  }
  return token_id >= 0 ? token_id : row_argmax(row);
}

// The least logit that top p alone can need: raises the bound in steps while the tokens above it still hold enough
// weight.
float lower_bound_of_top_p(std::span<const float> row, const SelectionLimits& limits, const Softmax& softmax,
                           SamplingScratch& scratch) {
  scratch.weights.resize(row.size());
  const double target = limits.top_p * row_exp(row, softmax.max, softmax.scale, scratch.weights, scratch.block_sums);
  for (float depth : {4.0f, 8.0f, 12.0f}) {
    const float least = fast_exp(-depth);
    double sum = 0.0;
    for (size_t block = 0; block < scratch.block_max.size(); ++block) {
      if ((scratch.block_max[block] - softmax.max) * softmax.scale < -depth) continue;
      const size_t end = std::min(row.size(), (block + 1) * kRowBlock);
      for (size_t i = block * kRowBlock; i < end; ++i) sum += scratch.weights[i] > least ? scratch.weights[i] : 0.0f;
    }
    // A little slack: this sum and the exact one differ in rounding.
    if (sum > target * (1.0 + 1e-6)) return softmax.max - depth / softmax.scale * 1.0001f;
  }
  return kMinusInfinity;
}

}  // namespace

void top_k_sorted(std::span<const float> row, int64_t k, SamplingScratch& scratch, std::vector<Candidate>& out) {
  out.clear();
  if (k <= 0) return;
  row_block_max(row, scratch.block_max);
  const float bound = lower_bound_of_top_k(k, scratch);
  for (size_t block = 0; block < scratch.block_max.size(); ++block) {
    if (scratch.block_max[block] < bound) continue;
    const size_t end = std::min(row.size(), (block + 1) * kRowBlock);
    for (size_t i = block * kRowBlock; i < end; ++i) {
      if (row[i] >= bound) out.push_back({row[i], static_cast<int32_t>(i)});
    }
  }
  const auto count = std::min<int64_t>(k, static_cast<int64_t>(out.size()));
  std::partial_sort(out.begin(), out.begin() + count, out.end(), likelier);
  out.resize(static_cast<size_t>(count));
}

int32_t sample_row(std::span<const float> row, const SelectionLimits& limits, double uniform,
                   SamplingScratch& scratch) {
  const auto size = static_cast<int64_t>(row.size());
  const bool cuts_k = limits.top_k > 0 && limits.top_k < size;
  const bool cuts_p = limits.top_p < 1.0;
  if (!cuts_k && !cuts_p && limits.min_p <= 0.0) {
    return draw_from_all(row, {row_max(row), 1.0f / limits.temperature}, uniform, scratch);
  }
  row_block_max(row, scratch.block_max);
  const Softmax softmax{row_max(scratch.block_max), 1.0f / limits.temperature};
  float bound = kMinusInfinity;
  if (limits.min_p > 0.0) bound = softmax.max + static_cast<float>(std::log(limits.min_p)) * limits.temperature;
  if (cuts_k) bound = std::max(bound, lower_bound_of_top_k(limits.top_k, scratch));
  if (cuts_p && !cuts_k && limits.min_p <= 0.0) bound = lower_bound_of_top_p(row, limits, softmax, scratch);
  collect(row, bound, scratch, scratch.candidates);
  if (cuts_k) keep_top_k(limits.top_k, scratch);
  if (cuts_p) {
    const bool of_all = !cuts_k && limits.min_p <= 0.0;
    double total = 0.0;
    if (of_all) {
      for (double sum : scratch.block_sums) total += sum;
    } else {
      total = total_weight(scratch.candidates, softmax);
    }
    keep_top_p(limits.top_p * total, softmax, scratch);
  }
  return draw(scratch.candidates, softmax, uniform);
}

}  // namespace octet
