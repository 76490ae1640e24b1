#include <algorithm>
#include <vector>

#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Token {
  float value = 0.0f;
  int32_t index = 0;
  uint64_t weight = 0;
};

// Likeliest first.
void sort(std::vector<Token>& tokens) {
  std::stable_sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.value > b.value; });
}

uint64_t total_of(const std::vector<Token>& tokens) {
  uint64_t total = 0;
  for (const Token& token : tokens) total += token.weight;
  return total;
}

void keep_top_k(std::vector<Token>& tokens, int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(tokens.size())) return;
  const float least = tokens[static_cast<size_t>(k) - 1].value;
  std::erase_if(tokens, [&](const Token& token) { return token.value < least; });
}

void keep_top_p(std::vector<Token>& tokens, double top_p) {
  const uint64_t target = top_p_target(top_p, total_of(tokens));
  uint64_t reached = 0;
  size_t count = 0;
  while (reached < target && count < tokens.size()) reached += tokens[count++].weight;
  tokens.resize(count);
}

// Of the 128-bit product.
uint64_t high_half(uint64_t a, uint64_t b) {
  constexpr uint64_t kLow = 0xffffffff;
  const uint64_t low = (a & kLow) * (b & kLow);
  const uint64_t middle = (a >> 32) * (b & kLow) + (low >> 32);
  const uint64_t other = (a & kLow) * (b >> 32) + (middle & kLow);
  return (a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32);
}

int32_t sampled(const float* row, int64_t columns, const RowDraw& draw) {
  Token likeliest{.value = -kInfinity, .index = kBrokenRow};
  for (int64_t i = 0; i < columns; ++i) {
    if (!(row[i] < kInfinity)) return kBrokenRow;
    if (row[i] > likeliest.value) likeliest = {.value = row[i], .index = static_cast<int32_t>(i)};
  }
  if (likeliest.index == kBrokenRow || draw.inverse_temperature == 0.0f) return likeliest.index;
  std::vector<Token> tokens;
  for (int64_t i = 0; i < columns; ++i) {
    if (row[i] < likeliest.value + draw.min_gap || row[i] == -kInfinity) continue;
    tokens.push_back({.value = row[i],
                      .index = static_cast<int32_t>(i),
                      .weight = token_weight((row[i] - likeliest.value) * draw.inverse_temperature)});
  }
  sort(tokens);
  keep_top_k(tokens, draw.top_k);
  if (draw.top_p < 1.0) keep_top_p(tokens, draw.top_p);
  std::sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.index < b.index; });
  uint64_t remaining = high_half(draw.uniform, total_of(tokens));
  for (const Token& token : tokens) {
    if (remaining < token.weight) return token.index;
    remaining -= token.weight;
  }
  return likeliest.index;  // not reached: the draw is below the total
}

void run(const SampleOp& op, const Launch&) {
  const auto* draws = reinterpret_cast<const RowDraw*>(op.draws.bytes);
  for (int64_t t = 0; t < op.x.dim(0); ++t)
    op.index.data<int32_t>()[t] = sampled(op.x.data<float>() + t * op.x.row_stride, op.x.dim(1), draws[t]);
}

}  // namespace

Kernel<SampleOp> reference_sample() {
  return {
      .name = "reference.sample", .declines = [](const SampleOp&, const Launch&) { return std::string(); }, .run = run};
}

}  // namespace octet
