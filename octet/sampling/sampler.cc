#include "octet/sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "octet/base/error.h"
#include "octet/sampling/philox.h"

namespace octet {
namespace {

constexpr double kLeastTemperature = 0.01;  // below it logits / temperature would overflow; vLLM's value

}  // namespace

SamplingState::SamplingState(const SamplingStart& start)
    : greedy_(start.params.greedy()),
      num_logprobs_(start.params.logprobs),
      seed_(start.seed),
      index_(static_cast<uint32_t>(start.index)) {
  const SamplingParams& params = start.params;
  limits_ = {.temperature = static_cast<float>(std::max(params.temperature, kLeastTemperature)),
             .top_k = std::max(params.top_k, 0),
             .top_p = params.top_p,
             .min_p = params.min_p};
  repetition_penalty_ = static_cast<float>(params.repetition_penalty);
  presence_penalty_ = static_cast<float>(params.presence_penalty);
  frequency_penalty_ = static_cast<float>(params.frequency_penalty);
  penalizes_ = repetition_penalty_ != 1.0f || presence_penalty_ != 0.0f || frequency_penalty_ != 0.0f;
  min_tokens_ = params.min_tokens;
  if (min_tokens_ > 0) {
    ending_ids_.assign(start.eos_token_ids.begin(), start.eos_token_ids.end());
    ending_ids_.insert(ending_ids_.end(), params.stop_token_ids.begin(), params.stop_token_ids.end());
  }
  allowed_ = params.allowed_token_ids;
  std::sort(allowed_.begin(), allowed_.end());
  allowed_.erase(std::unique(allowed_.begin(), allowed_.end()), allowed_.end());
  for (const auto& [id, bias] : params.logit_bias) bias_.emplace_back(id, std::clamp(bias, -100.0f, 100.0f));
  if (repetition_penalty_ != 1.0f) {
    for (int32_t id : start.prompt_token_ids) count(id, 0);
  }
  if (start.grammar) grammar_ = start.grammar->start();
}

void SamplingState::count(int32_t token_id, int32_t num_output) {
  const auto [found, is_new] = count_of_.try_emplace(token_id, counts_.size());
  if (is_new) counts_.push_back({token_id, 0});
  counts_[found->second].num_output += num_output;
}

bool SamplingState::leaves_logits_alone() const {
  return !grammar_ && allowed_.empty() && bias_.empty() && counts_.empty() &&
         (ending_ids_.empty() || num_output_ >= min_tokens_);
}

void SamplingState::prepare(int64_t vocab_size) {
  if (!grammar_ || prepared_) return;
  next_tokens_.resize((static_cast<size_t>(vocab_size) + 31) / 32);
  grammar_->next_tokens(next_tokens_);
  prepared_ = true;
}

void SamplingState::mask_by_grammar(std::span<float> row) const {
  OCTET_CHECK(prepared_ && next_tokens_.size() == (row.size() + 31) / 32);
  for (size_t word = 0; word < next_tokens_.size(); ++word) {
    const uint32_t bits = next_tokens_[word];
    if (bits == ~0u) continue;
    const size_t begin = word * 32, end = std::min(begin + 32, row.size());
    for (size_t i = begin; i < end; ++i) {
      if ((bits >> (i - begin) & 1) == 0) row[i] = kMinusInfinity;
    }
  }
}

// Where the grammar allows nothing but an end, that comes before min_tokens.
void SamplingState::mask_ending(std::span<float> row) const {
  const auto is_token = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < row.size(); };
  std::vector<std::pair<int32_t, float>> masked;
  for (int32_t id : ending_ids_) {
    if (!is_token(id)) continue;
    masked.emplace_back(id, row[static_cast<size_t>(id)]);
    row[static_cast<size_t>(id)] = kMinusInfinity;
  }
  if (!grammar_ || row_max(row) != kMinusInfinity) return;
  for (auto it = masked.rbegin(); it != masked.rend(); ++it) row[static_cast<size_t>(it->first)] = it->second;
}

void SamplingState::adjust(std::span<float> row, SamplingScratch& scratch) const {
  auto logit = [&](int32_t id) -> float& { return row[static_cast<size_t>(id)]; };
  if (grammar_) mask_by_grammar(row);
  if (!allowed_.empty()) {
    scratch.values.clear();
    for (int32_t id : allowed_) scratch.values.push_back(logit(id));
    std::fill(row.begin(), row.end(), kMinusInfinity);
    for (size_t i = 0; i < allowed_.size(); ++i) logit(allowed_[i]) = scratch.values[i];
  }
  if (num_output_ < min_tokens_) mask_ending(row);
  for (const auto& [id, bias] : bias_) logit(id) += bias;
  for (const Count& seen : counts_) {
    float& value = logit(seen.token_id);
    value = value > 0.0f ? value / repetition_penalty_ : value * repetition_penalty_;
    value -= frequency_penalty_ * static_cast<float>(seen.num_output);
    if (seen.num_output > 0) value -= presence_penalty_;
  }
}

void SamplingState::accept(int32_t token_id) {
  ++num_output_;
  if (grammar_) {
    grammar_->accept(token_id);
    prepared_ = false;
  }
  if (penalizes_) count(token_id, 1);
}

double SamplingState::uniform(int64_t position) const {
  return sampling_uniform(seed_, index_, static_cast<uint64_t>(position));
}

RowDraw SamplingState::row_draw(int64_t position) const {
  if (greedy_) return {};
  RowDraw draw{.top_p = limits_.top_p,
               .uniform = static_cast<uint64_t>(uniform(position) * 0x1p64),
               .inverse_temperature = 1.0f / limits_.temperature,
               .top_k = static_cast<int32_t>(limits_.top_k)};
  if (limits_.min_p > 0.0) draw.min_gap = static_cast<float>(std::log(limits_.min_p)) * limits_.temperature;
  return draw;
}

Sampled sample(std::span<float> row, SamplingState& state, int64_t position, SamplingScratch& scratch) {
  Sampled result;
  if (row_is_broken(row)) {
    result.outcome = SampleOutcome::kBrokenLogits;
    return result;
  }
  std::span<const float> raw = row;
  if (!state.leaves_logits_alone()) {
    if (state.num_logprobs()) {
      scratch.row.assign(row.begin(), row.end());
      raw = scratch.row;
    }
    state.prepare(static_cast<int64_t>(row.size()));
    state.adjust(row, scratch);
    if (row_max(row) == kMinusInfinity) {
      result.outcome = SampleOutcome::kNothingAllowed;
      return result;
    }
  }
  result.token_id =
      state.greedy() ? row_argmax(row) : sample_row(row, state.limits(), state.uniform(position), scratch);
  if (state.num_logprobs()) result.logprobs = position_logprobs(raw, result.token_id, *state.num_logprobs(), scratch);
  state.accept(result.token_id);
  return result;
}

}  // namespace octet
