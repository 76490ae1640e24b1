// Passes over one row of logits. Written as loops over a few independent lanes, so that compilers make vector code of
// them for any processor without being told its generation.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace octet {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// True when a value is NaN or plus infinity, or when all are minus infinity: nothing can be sampled.
bool row_is_broken(std::span<const float> row);

// The largest value; `row` has no NaN.
float row_max(std::span<const float> row);
// Index of the first largest value.
int32_t row_argmax(std::span<const float> row);
// The largest value of each 64 consecutive ones (the last block may be shorter): where to look for the top k.
inline constexpr int64_t kRowBlock = 64;
void row_block_max(std::span<const float> row, std::vector<float>& block_max);

// exp(x) with a relative error below 2e-7 for x <= 0; 0 below -87.
float fast_exp(float x);
// out[i] = exp((row[i] - shift) * scale); block_sums[b] = the sum over block b of kRowBlock values. Returns the sum of
// all.
double row_exp(std::span<const float> row, float shift, float scale, std::span<float> out,
               std::vector<double>& block_sums);
// log(sum(exp(row))), where max = row_max(row).
double row_log_sum_exp(std::span<const float> row, float max);
// How many values are greater than `value`.
int64_t row_count_greater(std::span<const float> row, float value);

}  // namespace octet
