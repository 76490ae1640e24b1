// The half of Scheduler that takes results in: commit, reconcile, abort.
#include <algorithm>

#include "octet/base/error.h"
#include "octet/engine/scheduler.h"

namespace octet {
namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

const char* outcome_text(SampleOutcome outcome) {
  return outcome == SampleOutcome::kBrokenLogits
             ? "NaN logits"
             : "no token is allowed: grammar, allowed_token_ids and min_tokens leave none";
}

}  // namespace

std::vector<SequenceUpdate> Scheduler::commit(const StepPlan& plan, StepResult result) {
  OCTET_CHECK(result.chunks.size() == plan.chunks.size());
  std::vector<SequenceUpdate> updates;
  updates.reserve(plan.chunks.size());
  for (size_t i = 0; i < plan.chunks.size(); ++i) commit_chunk(plan.chunks[i], std::move(result.chunks[i]), updates);
  return updates;
}

void Scheduler::commit_chunk(const StepChunk& chunk, ChunkResult result, std::vector<SequenceUpdate>& updates) {
  auto found = sequences_.find(chunk.sequence);
  if (found == sequences_.end()) return;  // aborted while the step ran
  Sequence& sequence = *found->second;
  const bool samples = chunk.sample == StepChunk::Sample::kYes;
  if (samples) --sequence.num_pending;
  if (result.sampled.outcome != SampleOutcome::kToken) {
    const std::string request_id = sequence.request->id;
    return end_group(request_id, FinishReason::kError, outcome_text(result.sampled.outcome), updates);
  }
  // A sequence preempted meanwhile has no blocks; its token counts all the same.
  if (sequence.phase == Sequence::Phase::kRunning) publish(sequence, chunk.end());
  if (sequence.key.index == 0 && sequence.request->sampling.n > 1 && chunk.end() >= sequence.num_prompt_tokens)
    release_held(requests_.at(sequence.request->id));
  const bool scores_only =
      sequence.max_tokens == sequence.num_prompt_tokens && chunk.end() >= sequence.num_prompt_tokens;
  if (!samples && !scores_only && result.prompt_logprobs.empty()) return;
  SequenceUpdate update = update_for(sequence);
  update.prompt_logprobs = std::move(result.prompt_logprobs);
  if (samples) accept_token(sequence, result.sampled, update);
  if (scores_only) update.finish_reason = FinishReason::kLength;
  if (update.finish_reason != FinishReason::kNone) finish(sequence, update);
  updates.push_back(std::move(update));
}

void Scheduler::accept_token(Sequence& sequence, Sampled& sampled, SequenceUpdate& update) const {
  const int32_t token_id = sampled.token_id;
  const Request& request = *sequence.request;
  sequence.token_ids.push_back(token_id);
  update.token_id = token_id;
  update.logprobs = std::move(sampled.logprobs);
  const bool ends_at_eos = !request.sampling.ignore_eos || request.grammar;  // nothing follows the end of a grammar
  const bool is_eos = ends_at_eos && contains(request.eos_token_ids, token_id);
  if (is_eos || contains(request.sampling.stop_token_ids, token_id)) {
    update.finish_reason = FinishReason::kStop;
    update.stop_token_id = token_id;
  } else if (sequence.num_tokens() >= sequence.max_tokens) {
    update.finish_reason = FinishReason::kLength;
  }
}

SequenceUpdate Scheduler::update_for(const Sequence& sequence) const {
  SequenceUpdate update;
  update.request = sequence.request;
  update.index = sequence.key.index;
  update.num_cached_tokens = sequence.num_cached_tokens;
  return update;
}

void Scheduler::release_held(Group& group) {
  for (const auto& sequence : group.sequences) {
    if (!sequence || sequence->phase != Sequence::Phase::kHeld) continue;
    sequence->phase = Sequence::Phase::kWaiting;
    waiting_[sequence->key] = sequence.get();
  }
}

// Takes the sequence out of everything and destroys it.
void Scheduler::finish(Sequence& sequence, SequenceUpdate& update) {
  auto found = requests_.find(sequence.request->id);
  Group& group = found->second;
  if (sequence.key.index == 0) release_held(group);
  blocks_.release(sequence.blocks);
  running_.erase(sequence.key);
  waiting_.erase(sequence.key);
  sequences_.erase(sequence.id);
  if (sequence.started) ended_.push_back(sequence.id);
  group.sequences[static_cast<size_t>(sequence.key.index)].reset();
  update.request_finished = --group.num_alive == 0;
  if (!update.request_finished) return;
  if (group.waits_in_queue) --num_queued_requests_;
  requests_.erase(found);
}

void Scheduler::end_group(const std::string& request_id, FinishReason reason, const std::string& error,
                          std::vector<SequenceUpdate>& updates) {
  auto found = requests_.find(request_id);
  if (found == requests_.end()) return;
  const auto num_sequences = found->second.sequences.size();
  for (size_t i = 0; i < num_sequences; ++i) {
    const auto& sequence = found->second.sequences[i];
    if (!sequence) continue;
    SequenceUpdate update = update_for(*sequence);
    update.finish_reason = reason;
    update.error = error;
    finish(*sequence, update);
    updates.push_back(std::move(update));
    if (updates.back().request_finished) return;  // the group is gone
  }
}

std::vector<SequenceUpdate> Scheduler::abort(const std::string& request_id, FinishReason reason,
                                             const std::string& error) {
  std::vector<SequenceUpdate> updates;
  end_group(std::string(request_id), reason, error, updates);
  return updates;
}

std::vector<SequenceUpdate> Scheduler::abort_waiting(const std::string& request_id) {
  const auto found = requests_.find(request_id);
  if (found == requests_.end() || !found->second.waits_in_queue) return {};
  return abort(request_id);
}

std::vector<SequenceUpdate> Scheduler::abort_sequence(const std::string& request_id, int32_t index) {
  const auto found = requests_.find(request_id);
  if (found == requests_.end() || index < 0 || index >= found->second.request->sampling.n) return {};
  const auto& sequence = found->second.sequences[static_cast<size_t>(index)];
  if (!sequence) return {};
  SequenceUpdate update = update_for(*sequence);
  update.finish_reason = FinishReason::kAbort;
  finish(*sequence, update);
  std::vector<SequenceUpdate> updates;
  updates.push_back(std::move(update));
  return updates;
}

std::vector<SequenceUpdate> Scheduler::abort_all(FinishReason reason, const std::string& error) {
  std::vector<SequenceUpdate> updates;
  while (!requests_.empty()) end_group(std::string(requests_.begin()->first), reason, error, updates);
  return updates;
}

void Scheduler::reconcile(StepPlan& plan) {
  std::erase_if(plan.chunks, [&](const StepChunk& chunk) {
    if (sequences_.contains(chunk.sequence)) return false;
    plan.num_tokens -= chunk.num_tokens;
    return true;
  });
  for (const StepChunk& chunk : plan.chunks) {
    int32_t& last = plan.token_ids[static_cast<size_t>(chunk.first_token + chunk.num_tokens - 1)];
    if (last == kPendingToken) last = sequences_.at(chunk.sequence)->token_ids.at(static_cast<size_t>(chunk.end() - 1));
  }
  int64_t budget = options_.max_num_batched_tokens - plan.num_tokens;
  if (!plan.empty()) plan_waiting(plan, budget);
  plan.num_tokens = options_.max_num_batched_tokens - budget;
  if (plan.empty()) {
    // Nobody will run it; what it says about ended sequences goes into the next one.
    ended_.insert(ended_.begin(), plan.ends.begin(), plan.ends.end());
    plan.ends.clear();
  }
}

}  // namespace octet
