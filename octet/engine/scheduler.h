// Scheduler: who runs in the next step. Pure host code for one thread: plan() and commit() exchange values with whoever
// runs the steps.
//
// There is no prefill or decode: every sequence has num_computed_tokens chasing num_tokens, and a step gives each a
// chunk of the difference within the token budget (continuous batching, chunked prefill). When blocks run out, the
// running sequence that comes last in the order of service gives its blocks back and is computed again later
// (preemption by recompute).
//
// n > 1: the first sequence computes the prompt; the others are held until then, fork its full blocks and compute the
// rest of the prompt (less than a block and one token) themselves, so no block is ever written by two sequences.
//
// Overlap: plan() may be called once more before the result of the last plan is committed; sequences then get the token
// that is still being sampled as kPendingToken. After commit(), reconcile() puts the real tokens and drops the chunks
// of sequences that ended, so that a step never computes anything for nothing; the room this leaves goes to waiting
// sequences. Tokens do not depend on whether this is done.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "octet/engine/request.h"
#include "octet/engine/sequence.h"
#include "octet/engine/step_plan.h"
#include "octet/kv/block_manager.h"

namespace octet {

struct SchedulerOptions {
  BlockManagerOptions blocks;
  int64_t max_model_len = 0;
  int64_t max_num_batched_tokens = 2048;
  int64_t max_num_seqs = 256;
  int64_t max_queued_requests = 1024;
  enum class ChunkedPrefill : uint8_t { kNo, kYes } chunked_prefill = ChunkedPrefill::kYes;  // kNo: a prompt runs whole
  enum class Policy : uint8_t { kFcfs, kPriority } policy = Policy::kFcfs;
  uint64_t seed = 0;
};

// What a step or an abort did to one sequence.
struct SequenceUpdate {
  std::shared_ptr<const Request> request;
  int32_t index = 0;
  std::optional<int32_t> token_id;
  PositionLogprobs logprobs;
  std::vector<PositionLogprobs> prompt_logprobs;  // new ones
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;
  std::string error;
  int64_t num_cached_tokens = 0;
  bool request_finished = false;  // the last update of the request
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Throws Error{kInvalid} when the request can never run: longer than max_model_len or than the KV cache.
  void check(const Request& request) const;
  // False when max_queued_requests are waiting already. A request that passed check() only. Ids are unique among the
  // living.
  [[nodiscard]] bool add(std::shared_ptr<const Request> request);
  // Ends all sequences of the request with `reason`; nothing when the id is unknown.
  std::vector<SequenceUpdate> abort(const std::string& request_id, FinishReason reason = FinishReason::kAbort,
                                    const std::string& error = "");
  // Ends one sequence with kAbort; the others go on. Nothing when the id is unknown or the sequence has ended. Prompt
  // log-probabilities, on_logits and on_hidden come with sequence 0, and end with it.
  std::vector<SequenceUpdate> abort_sequence(const std::string& request_id, int32_t index);
  // abort() if no sequence of the request has begun to run.
  std::vector<SequenceUpdate> abort_waiting(const std::string& request_id);
  std::vector<SequenceUpdate> abort_all(FinishReason reason, const std::string& error);

  // Empty when there is nothing to run. At most one plan may be uncommitted (see overlap).
  StepPlan plan();
  std::vector<SequenceUpdate> commit(const StepPlan& plan, StepResult result);
  void reconcile(StepPlan& plan);

  void reset_prefix_cache() { blocks_.reset_prefix_cache(); }
  bool idle() const { return requests_.empty(); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }
  const BlockManager& blocks() const { return blocks_; }
  // For tests: throws Error{kInternal} when blocks, queues and sequences do not add up. O(n).
  void check_integrity() const;

 private:
  struct Group {  // the sequences of a living request, by index; ended ones are null
    std::shared_ptr<const Request> request;
    std::vector<std::unique_ptr<Sequence>> sequences;
    int32_t num_alive = 0;
    bool waits_in_queue = true;  // no sequence of it has run yet: counts against max_queued_requests
  };

  int64_t token_limit() const;
  // False when it had to preempt.
  bool plan_running(StepPlan& plan, int64_t& budget);
  void plan_waiting(StepPlan& plan, int64_t& budget);
  bool admit(Sequence& sequence, StepPlan& plan, int64_t& budget);
  bool attach_prefix(Sequence& sequence);
  void score(Sequence& sequence, StepChunk& chunk) const;
  bool grow(Sequence& sequence, int64_t num_tokens);
  void append_chunk(Sequence& sequence, int64_t num_tokens, StepPlan& plan);
  void preempt(Sequence& sequence);
  void make_hashes(Sequence& sequence, int64_t count) const;
  void publish(Sequence& sequence, int64_t num_tokens);
  void release_held(Group& group);
  const Sequence* prompt_source(const Sequence& sequence) const;
  bool may_share(const Sequence& sequence) const;

  void commit_chunk(const StepChunk& chunk, ChunkResult result, std::vector<SequenceUpdate>& updates);
  void accept_token(Sequence& sequence, Sampled& sampled, SequenceUpdate& update) const;
  SequenceUpdate update_for(const Sequence& sequence) const;
  void finish(Sequence& sequence, SequenceUpdate& update);
  void end_group(const std::string& request_id, FinishReason reason, const std::string& error,
                 std::vector<SequenceUpdate>& updates);

  SchedulerOptions options_;
  BlockManager blocks_;
  std::unordered_map<std::string, Group> requests_;
  std::unordered_map<SequenceId, Sequence*> sequences_;
  std::map<SequenceKey, Sequence*> waiting_;
  std::map<SequenceKey, Sequence*> running_;
  std::vector<SequenceId> ended_;  // not yet told to the runners
  int64_t num_queued_requests_ = 0;
  int64_t num_preemptions_ = 0;
  size_t num_planned_blocks_ = 0;  // in the last plan: about as many as in the next
  uint64_t num_arrived_ = 0;
  uint64_t num_sequences_ = 0;
};

}  // namespace octet
