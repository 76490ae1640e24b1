#include "octet/sampling/row_ops.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace octet {
namespace {

constexpr size_t kLanes = 16;

// NaN or plus infinity, by their bits: comparisons of integers that become vector code.
inline int32_t is_broken(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  return static_cast<int32_t>(bits > 0x7f7fffff) | static_cast<int32_t>((bits & 0x7fffffff) > 0x7f800000);
}

inline float larger(float a, float b) { return a > b ? a : b; }

// exp(x) = 2^n * exp(r), |r| <= ln(2)/2; exp(r) by the polynomial of Cephes' expf (Moshier). x in [-87, 0].
inline float exp_core(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  float r = x - n * 0.693359375f;
  r -= n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = (std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound)) * (1 << 23);
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) + exponent);
}

constexpr float kSmallest = -87.0f;

// exp(x), exactly zero below kSmallest; without branches, so that loops of it become vector code.
inline float exp_or_zero(float x) {
  const float value = exp_core(larger(x, kSmallest));
  const int32_t mask = -static_cast<int32_t>(x > kSmallest);
  return std::bit_cast<float>(std::bit_cast<int32_t>(value) & mask);
}

void exp_block(const float* __restrict in, int64_t count, float shift, float scale, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = exp_or_zero((in[i] - shift) * scale);
}

inline double sum_block(const float* in, int64_t count) {
  std::array<float, 4> lanes{};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) lanes[lane] += in[i + static_cast<int64_t>(lane)];
  }
  double sum = (static_cast<double>(lanes[0]) + lanes[1]) + (static_cast<double>(lanes[2]) + lanes[3]);
  for (; i < count; ++i) sum += in[i];
  return sum;
}

}  // namespace

bool row_is_broken(std::span<const float> row) {
  std::array<int32_t, kLanes> broken{};
  const size_t whole = row.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) broken[lane] |= is_broken(row[i + lane]);
  }
  int32_t any = 0;
  for (int32_t lane : broken) any |= lane;
  for (size_t i = whole; i < row.size(); ++i) any |= is_broken(row[i]);
  return any != 0 || row_max(row) == kMinusInfinity;
}

float row_max(std::span<const float> row) {
  std::array<float, kLanes> lanes;
  lanes.fill(kMinusInfinity);
  const size_t whole = row.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] = larger(row[i + lane], lanes[lane]);
  }
  float max = kMinusInfinity;
  for (float lane : lanes) max = larger(lane, max);
  for (size_t i = whole; i < row.size(); ++i) max = larger(row[i], max);
  return max;
}

int32_t row_argmax(std::span<const float> row) {
  // Two passes: the maximum by pieces, then a search in the first piece that has it.
  constexpr size_t kPiece = 1024;
  float best = kMinusInfinity;
  size_t best_piece = 0;
  for (size_t begin = 0; begin < row.size(); begin += kPiece) {
    const float max = row_max(row.subspan(begin, std::min(kPiece, row.size() - begin)));
    if (max > best) {
      best = max;
      best_piece = begin;
    }
  }
  size_t i = best_piece;
  while (i + 1 < row.size() && row[i] != best) ++i;
  return static_cast<int32_t>(i);
}

void row_block_max(std::span<const float> row, std::vector<float>& block_max) {
  block_max.clear();
  for (size_t begin = 0; begin < row.size(); begin += kRowBlock) {
    block_max.push_back(row_max(row.subspan(begin, std::min<size_t>(kRowBlock, row.size() - begin))));
  }
}

float fast_exp(float x) { return exp_or_zero(x); }

double row_exp(std::span<const float> row, float shift, float scale, std::span<float> out,
               std::vector<double>& block_sums) {
  const auto size = static_cast<int64_t>(row.size());
  block_sums.clear();
  double total = 0.0;
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    const int64_t count = std::min(kRowBlock, size - begin);
    exp_block(row.data() + begin, count, shift, scale, out.data() + begin);
    block_sums.push_back(sum_block(out.data() + begin, count));
    total += block_sums.back();
  }
  return total;
}

double row_log_sum_exp(std::span<const float> row, float max) {
  const auto size = static_cast<int64_t>(row.size());
  std::array<float, kRowBlock> block;
  double total = 0.0;
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    const int64_t count = std::min(kRowBlock, size - begin);
    exp_block(row.data() + begin, count, max, 1.0f, block.data());
    total += sum_block(block.data(), count);
  }
  return max + std::log(total);
}

int64_t row_count_greater(std::span<const float> row, float value) {
  std::array<int32_t, kLanes> counts{};
  const size_t whole = row.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) counts[lane] += row[i + lane] > value ? 1 : 0;
  }
  int64_t count = 0;
  for (int32_t lane : counts) count += lane;
  for (size_t i = whole; i < row.size(); ++i) count += row[i] > value ? 1 : 0;
  return count;
}

}  // namespace octet
