// Which tokens of a row may be sampled: top k, min p and top p without sorting the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "octet/sampling/row_ops.h"

namespace octet {

struct Candidate {
  float value = 0.0f;  // logit
  int32_t token_id = 0;
};

// Temporary memory of one thread; grows to the vocabulary's size and stays.
struct SamplingScratch {
  std::vector<float> row;      // a copy of the logits
  std::vector<float> weights;  // exp of all logits
  std::vector<double> block_sums;
  std::vector<float> block_max;
  std::vector<float> values;
  std::vector<Candidate> candidates;
  std::vector<Candidate> sorted;
};

// The k largest values, largest first, equal ones by token id; all for k >= row.size().
void top_k_sorted(std::span<const float> row, int64_t k, SamplingScratch& scratch, std::vector<Candidate>& out);

struct SelectionLimits {
  float temperature = 1.0f;  // > 0
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
};

// One draw from softmax(row / temperature) restricted, in this order, to
//   min_p: tokens with at least min_p times the probability of the likeliest;
//   top_k: tokens whose logit is at least the k-th largest (equal logits stay together, as in Hugging Face and vLLM);
//   top_p: the smallest set of likeliest tokens whose probabilities, renormalised after the filters above, reach top_p;
//   equal
//          ones by token id.
// `uniform` in [0, 1) picks by the cumulative distribution in the order of token ids. `row`: no NaN, not all -infinity.
int32_t sample_row(std::span<const float> row, const SelectionLimits& limits, double uniform, SamplingScratch& scratch);

}  // namespace octet
