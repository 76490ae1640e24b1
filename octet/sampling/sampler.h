// SamplingState: what choosing the tokens of one sequence needs to remember. sample(): one row of logits to one token.
//
// The order is vLLM's: grammar, allowed_token_ids, min_tokens, logit_bias, penalties; then greedy, or temperature,
// min_p, top_k, top_p.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "octet/ops/sample.h"
#include "octet/sampling/grammar.h"
#include "octet/sampling/logprobs.h"
#include "octet/sampling/params.h"
#include "octet/sampling/selection.h"

namespace octet {

struct SamplingStart {
  const SamplingParams& params;
  std::span<const int32_t> eos_token_ids;  // masked like stop ids until min_tokens are there; empty with ignore_eos
  const Grammar* grammar = nullptr;        // nullptr: any text
  std::span<const int32_t> prompt_token_ids;
  uint64_t seed = 0;
  int32_t index = 0;  // which of the request's n sequences
};

class SamplingState {
 public:
  explicit SamplingState(const SamplingStart& start);

  // Computes what the grammar allows next, if it is not known yet: adjust() needs it. Worth doing while the device
  // computes the logits.
  void prepare(int64_t vocab_size);

  // Applies everything that changes logits before greedy choice or temperature.
  void adjust(std::span<float> row, SamplingScratch& scratch) const;
  // True when adjust() would do nothing.
  bool leaves_logits_alone() const;
  // True when nothing but the next token is asked for, and logits alone decide on it: a device that draws it by
  // row_draw() need not show them.
  bool needs_only_a_draw() const { return !num_logprobs_ && leaves_logits_alone(); }
  // How the token at `position` is chosen.
  RowDraw row_draw(int64_t position) const;
  // Takes note of a chosen token.
  void accept(int32_t token_id);

  bool greedy() const { return greedy_; }
  const SelectionLimits& limits() const { return limits_; }
  const std::optional<int32_t>& num_logprobs() const { return num_logprobs_; }
  double uniform(int64_t position) const;

 private:
  struct Count {
    int32_t token_id = 0;
    int32_t num_output = 0;  // 0: in the prompt only
  };
  void count(int32_t token_id, int32_t num_output);
  void mask_by_grammar(std::span<float> row) const;
  void mask_ending(std::span<float> row) const;

  bool greedy_ = false;
  SelectionLimits limits_;
  std::optional<int32_t> num_logprobs_;
  uint64_t seed_ = 0;
  uint32_t index_ = 0;
  float repetition_penalty_ = 1.0f, presence_penalty_ = 0.0f, frequency_penalty_ = 0.0f;
  int64_t num_output_ = 0;
  int64_t min_tokens_ = 0;
  std::vector<int32_t> ending_ids_;  // eos and stop ids
  std::vector<int32_t> allowed_;     // sorted; empty: all
  std::vector<std::pair<int32_t, float>> bias_;
  std::vector<Count> counts_;  // of distinct tokens; kept only when there are penalties
  std::unordered_map<int32_t, size_t> count_of_;
  bool penalizes_ = false;
  std::unique_ptr<GrammarState> grammar_;
  std::vector<uint32_t> next_tokens_;  // bits; of the grammar, when prepared
  bool prepared_ = false;
};

enum class SampleOutcome : uint8_t {
  kToken,
  kBrokenLogits,    // NaN or infinite logits
  kNothingAllowed,  // masks leave no token
};
struct Sampled {
  SampleOutcome outcome = SampleOutcome::kToken;
  int32_t token_id = 0;
  PositionLogprobs logprobs;  // when asked for
};

// Chooses the token at `position` from row [vocab_size] (which it may overwrite) and lets the state take note of it.
Sampled sample(std::span<float> row, SamplingState& state, int64_t position, SamplingScratch& scratch);

}  // namespace octet
