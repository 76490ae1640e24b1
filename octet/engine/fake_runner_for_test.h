// FakeRunner: runs StepPlans with a "model" that is a hash of the sequence's tokens, over a "KV cache" that holds one
// hash per slot. A wrong block table, a block shared too early or written by two sequences changes the hash, and so the
// tokens.
#pragma once

#include <gtest/gtest.h>

#include <unordered_map>
#include <vector>

#include "octet/engine/step_plan.h"

namespace octet {

inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15ULL)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 29)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 32);
}

struct FakeModel {
  int32_t vocab_size = 50;
  // The token after a sequence with this hash.
  int32_t next(uint64_t hash, uint64_t seed, int32_t index) const {
    return static_cast<int32_t>(mix(mix(hash, seed), static_cast<uint64_t>(index)) % static_cast<uint64_t>(vocab_size));
  }
  // The whole output of one sequence, computed alone and at once.
  std::vector<int32_t> generate(const Request& request, uint64_t seed, int32_t index, int64_t max_model_len) const {
    uint64_t hash = 0;
    for (int32_t token : request.prompt_token_ids) hash = mix(hash, static_cast<uint64_t>(token));
    std::vector<int32_t> output;
    const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
    const int64_t most = std::min<int64_t>(request.sampling.max_tokens.value_or(1 << 30), max_model_len - prompt);
    while (static_cast<int64_t>(output.size()) < most) {
      output.push_back(next(hash, seed, index));
      hash = mix(hash, static_cast<uint64_t>(output.back()));
      if (std::ranges::find(request.eos_token_ids, output.back()) != request.eos_token_ids.end()) break;
    }
    return output;
  }
};

class FakeRunner {
 public:
  FakeRunner(FakeModel model, int64_t num_blocks, int64_t block_size)
      : model_(model), block_size_(block_size), kv_(static_cast<size_t>(num_blocks * block_size)) {}

  StepResult run(const StepPlan& plan) {
    for (const SequenceStart& start : plan.starts) EXPECT_TRUE(known_.emplace(start.sequence, start).second);
    StepResult result;
    int64_t num_tokens = 0;
    for (const StepChunk& chunk : plan.chunks) {
      result.chunks.push_back(run_chunk(plan, chunk));
      num_tokens += chunk.num_tokens;
    }
    EXPECT_EQ(num_tokens, plan.num_tokens);
    for (SequenceId id : plan.ends) known_.erase(id);
    return result;
  }
  size_t num_known() const { return known_.size(); }
  int64_t num_computed() const { return num_computed_; }

 private:
  struct Slot {
    uint64_t hash = 0;
    int32_t token = -1;
  };
  Slot& slot(const StepPlan& plan, const StepChunk& chunk, int64_t position) {
    const auto block = plan.blocks_of(chunk)[static_cast<size_t>(position / block_size_)];
    return kv_.at(static_cast<size_t>(block * block_size_ + position % block_size_));
  }

  ChunkResult run_chunk(const StepPlan& plan, const StepChunk& chunk) {
    const SequenceStart& start = known_.at(chunk.sequence);
    const auto tokens = plan.tokens_of(chunk);
    const auto& prompt = start.request->prompt_token_ids;
    ChunkResult result;
    for (int64_t i = 0; i < chunk.num_tokens; ++i) {
      const int64_t position = chunk.begin + i;
      const int32_t token = tokens[static_cast<size_t>(i)];
      EXPECT_GE(token, 0);
      const uint64_t before = position > 0 ? slot(plan, chunk, position - 1).hash : 0;
      slot(plan, chunk, position) = {mix(before, static_cast<uint64_t>(token)), token};
      ++num_computed_;
      if (position >= chunk.score_begin && position + 1 < static_cast<int64_t>(prompt.size()) &&
          start.request->sampling.prompt_logprobs) {
        const int32_t next = prompt[static_cast<size_t>(position) + 1];
        result.prompt_logprobs.push_back({{.token_id = next, .logprob = -static_cast<float>(position), .rank = 1}});
      }
    }
    if (chunk.sample == StepChunk::Sample::kNo) return result;
    uint64_t hash = 0;  // attention sees every slot, not only the last
    for (int64_t i = 0; i < chunk.end(); ++i) hash = mix(hash, static_cast<uint64_t>(slot(plan, chunk, i).token));
    EXPECT_EQ(hash, slot(plan, chunk, chunk.end() - 1).hash);
    result.sampled.token_id = model_.next(hash, start.seed, start.index);
    return result;
  }

  FakeModel model_;
  int64_t block_size_;
  std::vector<Slot> kv_;
  std::unordered_map<SequenceId, SequenceStart> known_;
  int64_t num_computed_ = 0;
};

}  // namespace octet
