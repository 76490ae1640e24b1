// Sequence: one token stream of a request with its progress. Belongs to the scheduler.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "octet/engine/step_plan.h"
#include "octet/kv/block_manager.h"

namespace octet {

// The order in which sequences are served: priority first (under that policy), then arrival, then index.
struct SequenceKey {
  int32_t priority = 0;
  uint64_t arrival = 0;
  int32_t index = 0;
  auto operator<=>(const SequenceKey&) const = default;
};

struct Sequence {
  SequenceId id = 0;
  SequenceKey key;
  std::shared_ptr<const Request> request;
  uint64_t seed = 0;

  std::vector<int32_t> token_ids;  // prompt, then output
  int64_t num_prompt_tokens = 0;
  int64_t max_tokens = 0;           // prompt and output together may not become longer
  int64_t num_computed_tokens = 0;  // whose KV is in the cache once the steps planned so far have run
  int32_t num_pending = 0;          // tokens that planned, uncommitted steps will sample
  int64_t num_scored = 0;           // prompt rows that prompt_logprobs, on_logits and on_hidden have seen
  int64_t num_cached_tokens = 0;    // prompt tokens found in the cache at first admission
  std::vector<BlockId> blocks;
  std::vector<BlockHash> hashes;  // names of the first full blocks, made when needed
  int64_t num_published = 0;      // blocks of `blocks` that have been published

  enum class Phase : uint8_t {
    kHeld,
    kWaiting,
    kRunning
  } phase = Phase::kWaiting;  // kHeld: until the prompt's KV exists
  bool started = false;       // the runners know it

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
  int64_t num_output_tokens() const { return num_tokens() - num_prompt_tokens; }
};

}  // namespace octet
