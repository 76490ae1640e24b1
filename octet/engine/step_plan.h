// StepPlan: what one step shall run; StepResult: what came out. Plain values between the scheduler and the ranks'
// runners.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "octet/engine/request.h"
#include "octet/sampling/sampler.h"

namespace octet {

using SequenceId = uint64_t;

// In a plan made while the step before it still runs: the token that step samples. Scheduler::reconcile puts the real
// one.
inline constexpr int32_t kPendingToken = -1;
inline constexpr int64_t kNothingScored = std::numeric_limits<int64_t>::max();

// Consecutive tokens of one sequence. Prefill, a chunk of it, and decode are all this.
struct StepChunk {
  SequenceId sequence = 0;
  int64_t begin = 0;  // position of the first token
  int32_t num_tokens = 0;
  int32_t first_token = 0;  // where they start in StepPlan::token_ids
  int32_t first_block = 0;  // the sequence's block table in StepPlan::block_ids
  int32_t num_blocks = 0;
  enum class Sample : uint8_t { kNo, kYes } sample = Sample::kNo;  // a token from the last row
  int64_t score_begin = kNothingScored;  // rows from here on go to prompt_logprobs, on_logits, on_hidden
  int64_t end() const { return begin + num_tokens; }
};

// A sequence whose sampling state the runners shall make. Comes in the plan of its first chunk.
struct SequenceStart {
  SequenceId sequence = 0;
  std::shared_ptr<const Request> request;
  int32_t index = 0;
  uint64_t seed = 0;
};

struct StepPlan {
  std::vector<StepChunk> chunks;
  std::vector<int32_t> token_ids;
  std::vector<int32_t> block_ids;
  std::vector<SequenceStart> starts;
  std::vector<SequenceId> ends;  // sequences whose state can go; applied after starts
  int64_t num_tokens = 0;        // of all chunks

  bool empty() const { return chunks.empty(); }
  std::span<const int32_t> tokens_of(const StepChunk& chunk) const {
    return std::span(token_ids).subspan(static_cast<size_t>(chunk.first_token), static_cast<size_t>(chunk.num_tokens));
  }
  std::span<const int32_t> blocks_of(const StepChunk& chunk) const {
    return std::span(block_ids).subspan(static_cast<size_t>(chunk.first_block), static_cast<size_t>(chunk.num_blocks));
  }
};

// Of one chunk.
struct ChunkResult {
  Sampled sampled;  // meaningful when the chunk samples, or when the outcome is not kToken
  std::vector<PositionLogprobs> prompt_logprobs;  // of the tokens after the scored rows, as far as the prompt goes
};

struct StepResult {
  std::vector<ChunkResult> chunks;  // one per chunk of the plan
};

}  // namespace octet
