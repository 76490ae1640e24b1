#include "octet/engine/scheduler.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/sampling/philox.h"

namespace octet {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool wants_every_row(const Request& request) {
  return request.sampling.prompt_logprobs.has_value() || request.row_scope == Request::RowScope::kAll;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options) : options_(options), blocks_(options.blocks) {
  OCTET_CHECK(options_.max_model_len >= 1 && options_.max_num_batched_tokens >= 1 && options_.max_num_seqs >= 1);
  if (options_.chunked_prefill == SchedulerOptions::ChunkedPrefill::kNo) {
    // Without chunks any sequence, also one that is computed again, must fit one step.
    options_.max_num_batched_tokens = std::max(options_.max_num_batched_tokens, options_.max_model_len);
  }
}

int64_t Scheduler::token_limit() const {
  return std::min(options_.max_model_len, blocks_.num_blocks() * blocks_.block_size());
}

void Scheduler::check(const Request& request) const {
  const auto length = static_cast<int64_t>(request.prompt_token_ids.size());
  if (length == 0) fail(ErrorCode::kInvalid, "prompt: must have at least one token");
  if (length > options_.max_model_len) {
    fail(ErrorCode::kInvalid, "prompt: has {} tokens, the model's context (max_model_len) is {}", length,
         options_.max_model_len);
  }
  if (length > token_limit()) {
    fail(ErrorCode::kInvalid, "prompt: has {} tokens, the whole KV cache holds {} ({} blocks of {})", length,
         token_limit(), blocks_.num_blocks(), blocks_.block_size());
  }
  if (length == token_limit() && request.sampling.max_tokens != 0) {
    fail(ErrorCode::kInvalid, "prompt: has {} tokens, which leaves no room to generate any: at most {} tokens fit",
         length, token_limit());
  }
}

bool Scheduler::add(std::shared_ptr<const Request> request) {
  if (num_queued_requests_ >= options_.max_queued_requests) return false;
  OCTET_CHECK(!requests_.contains(request->id));
  const SamplingParams& sampling = request->sampling;
  const uint64_t arrival = num_arrived_++;
  const uint64_t seed = sampling.seed ? static_cast<uint64_t>(*sampling.seed) : derived_seed(options_.seed, arrival);
  Group& group = requests_[request->id];
  group.request = request;
  group.num_alive = sampling.n;
  ++num_queued_requests_;
  for (int32_t index = 0; index < sampling.n; ++index) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = num_sequences_++;
    sequence->key = {.priority = options_.policy == SchedulerOptions::Policy::kPriority ? request->priority : 0,
                     .arrival = arrival,
                     .index = index};
    sequence->request = request;
    sequence->seed = seed;
    sequence->token_ids = request->prompt_token_ids;
    sequence->num_prompt_tokens = sequence->num_tokens();
    const int64_t limit = token_limit();
    sequence->max_tokens = sampling.max_tokens ? std::min(limit, sequence->num_tokens() + *sampling.max_tokens) : limit;
    sequences_[sequence->id] = sequence.get();
    if (index == 0) {
      waiting_[sequence->key] = sequence.get();
    } else {
      sequence->phase = Sequence::Phase::kHeld;
    }
    group.sequences.push_back(std::move(sequence));
  }
  return true;
}

StepPlan Scheduler::plan() {
  StepPlan plan;
  plan.chunks.reserve(running_.size());
  plan.token_ids.reserve(running_.size());
  plan.block_ids.reserve(num_planned_blocks_ + running_.size());
  int64_t budget = options_.max_num_batched_tokens;
  // A step that preempts admits nobody: they would only take the blocks that were just given back.
  if (plan_running(plan, budget)) plan_waiting(plan, budget);
  plan.num_tokens = options_.max_num_batched_tokens - budget;
  num_planned_blocks_ = plan.block_ids.size();
  if (!plan.empty()) plan.ends.swap(ended_);
  return plan;
}

bool Scheduler::plan_running(StepPlan& plan, int64_t& budget) {
  bool preempted = false;
  for (auto it = running_.begin(); it != running_.end() && budget > 0;) {
    Sequence& sequence = *it->second;
    ++it;
    const int64_t total = sequence.num_tokens() + sequence.num_pending;
    const int64_t count = std::min(total - sequence.num_computed_tokens, budget);
    // Nothing to do, or its last token is being sampled just now.
    if (count <= 0 || (sequence.num_pending > 0 && total >= sequence.max_tokens)) continue;
    while (!grow(sequence, sequence.num_computed_tokens + count)) {
      preempted = true;
      Sequence& victim = *running_.rbegin()->second;
      if (it != running_.end() && it->second == &victim) it = running_.end();
      preempt(victim);
      if (&victim == &sequence) break;
    }
    if (sequence.phase != Sequence::Phase::kRunning) break;  // it was the last one itself
    append_chunk(sequence, count, plan);
    budget -= count;
  }
  return !preempted;
}

void Scheduler::plan_waiting(StepPlan& plan, int64_t& budget) {
  while (!waiting_.empty() && budget > 0 && num_running() < options_.max_num_seqs) {
    if (!admit(*waiting_.begin()->second, plan, budget)) break;
  }
}

bool Scheduler::admit(Sequence& sequence, StepPlan& plan, int64_t& budget) {
  if (sequence.num_pending > 0) return false;  // preempted while a step samples its next token
  if (!attach_prefix(sequence)) return false;
  const int64_t missing = sequence.num_tokens() - sequence.num_computed_tokens;
  if (missing > budget && options_.chunked_prefill == SchedulerOptions::ChunkedPrefill::kNo) {
    blocks_.release(sequence.blocks);
    sequence.num_computed_tokens = sequence.num_published = 0;
    return false;
  }
  const int64_t count = std::min(missing, budget);
  OCTET_CHECK(grow(sequence, sequence.num_computed_tokens + count));  // attach_prefix has made sure
  waiting_.erase(sequence.key);
  running_[sequence.key] = &sequence;
  sequence.phase = Sequence::Phase::kRunning;
  if (!sequence.started) {
    sequence.started = true;
    plan.starts.push_back(
        {.sequence = sequence.id, .request = sequence.request, .index = sequence.key.index, .seed = sequence.seed});
    Group& group = requests_.at(sequence.request->id);
    if (group.waits_in_queue) {
      group.waits_in_queue = false;
      --num_queued_requests_;
      sequence.num_cached_tokens = sequence.num_computed_tokens;
    }
  }
  append_chunk(sequence, count, plan);
  budget -= count;
  return true;
}

// Takes the blocks of the longest prefix whose KV exists, if the blocks for all the rest of the sequence are available
// too: admitting what does not fit would only lead to preemption. The last token is always computed: its row is needed.
bool Scheduler::attach_prefix(Sequence& sequence) {
  const int64_t size = blocks_.block_size();
  const int64_t most = (sequence.num_tokens() - 1) / size;
  BlockManager::Match match;
  if (blocks_.caches_prefixes() && may_share(sequence)) {
    make_hashes(sequence, most);
    match = blocks_.match(std::span(sequence.hashes).first(static_cast<size_t>(most)));
  }
  int64_t num_shared = match.num_blocks, num_taken = match.num_unreferenced;
  const Sequence* source = prompt_source(sequence);
  const int64_t num_forked = source ? (sequence.num_prompt_tokens - 1) / size : 0;
  const bool forks = num_forked > num_shared;
  if (forks) {
    num_shared = num_forked;
    num_taken = 0;
  }
  const int64_t num_new = divide_up(sequence.num_tokens(), size) - num_shared;
  if (num_new > blocks_.num_available() - num_taken) return false;
  if (forks) {
    blocks_.fork(std::span(source->blocks).first(static_cast<size_t>(num_shared)), sequence.blocks);
  } else {
    blocks_.share_cached(std::span(sequence.hashes).first(static_cast<size_t>(num_shared)), sequence.blocks);
  }
  sequence.num_computed_tokens = num_shared * size;
  sequence.num_published = num_shared;
  return true;
}

// Rows that the client wants must be computed, not found in the cache.
bool Scheduler::may_share(const Sequence& sequence) const {
  return sequence.key.index > 0 || !wants_every_row(*sequence.request) ||
         sequence.num_scored >= sequence.num_prompt_tokens;
}

// Another sequence of the request whose table holds the whole prompt's KV.
const Sequence* Scheduler::prompt_source(const Sequence& sequence) const {
  if (sequence.request->sampling.n == 1) return nullptr;
  for (const auto& other : requests_.at(sequence.request->id).sequences) {
    if (!other || other.get() == &sequence || other->phase != Sequence::Phase::kRunning) continue;
    if (other->num_computed_tokens >= other->num_prompt_tokens) return other.get();
  }
  return nullptr;
}

bool Scheduler::grow(Sequence& sequence, int64_t num_tokens) {
  const int64_t missing = divide_up(num_tokens, blocks_.block_size()) - static_cast<int64_t>(sequence.blocks.size());
  return missing <= 0 || blocks_.allocate(missing, sequence.blocks);
}

void Scheduler::append_chunk(Sequence& sequence, int64_t num_tokens, StepPlan& plan) {
  const int64_t begin = sequence.num_computed_tokens, end = begin + num_tokens;
  const int64_t total = sequence.num_tokens() + sequence.num_pending;
  const int64_t num_blocks = divide_up(end, blocks_.block_size());
  StepChunk chunk{.sequence = sequence.id,
                  .begin = begin,
                  .num_tokens = static_cast<int32_t>(num_tokens),
                  .first_token = static_cast<int32_t>(plan.token_ids.size()),
                  .first_block = static_cast<int32_t>(plan.block_ids.size()),
                  .num_blocks = static_cast<int32_t>(num_blocks)};
  for (int64_t i = begin; i < end; ++i) {
    plan.token_ids.push_back(i < sequence.num_tokens() ? sequence.token_ids[static_cast<size_t>(i)] : kPendingToken);
  }
  plan.block_ids.insert(plan.block_ids.end(), sequence.blocks.begin(), sequence.blocks.begin() + num_blocks);
  score(sequence, chunk);
  if (end == total && total < sequence.max_tokens) {
    chunk.sample = StepChunk::Sample::kYes;
    ++sequence.num_pending;
  }
  sequence.num_computed_tokens = end;
  plan.chunks.push_back(chunk);
}

void Scheduler::score(Sequence& sequence, StepChunk& chunk) const {
  const int64_t length = sequence.num_prompt_tokens;
  if (sequence.key.index > 0 || sequence.num_scored >= length || chunk.end() <= sequence.num_scored) return;
  int64_t begin = kNothingScored;
  if (wants_every_row(*sequence.request)) {
    begin = std::max(sequence.num_scored, chunk.begin);
  } else if (sequence.request->row_scope == Request::RowScope::kLast) {
    begin = length - 1;
  }
  if (begin >= chunk.end()) return;
  chunk.score_begin = begin;
  sequence.num_scored = std::min(chunk.end(), length);
}

void Scheduler::preempt(Sequence& sequence) {
  blocks_.release(sequence.blocks);
  sequence.num_computed_tokens = sequence.num_published = 0;
  sequence.phase = Sequence::Phase::kWaiting;
  running_.erase(sequence.key);
  waiting_[sequence.key] = &sequence;
  ++num_preemptions_;
}

void Scheduler::make_hashes(Sequence& sequence, int64_t count) const {
  const auto size = static_cast<size_t>(blocks_.block_size());
  for (size_t i = sequence.hashes.size(); i < static_cast<size_t>(count); ++i) {
    const BlockHash parent = i > 0 ? sequence.hashes[i - 1] : hash_salt(blocks_.key(), sequence.request->cache_salt);
    sequence.hashes.push_back(hash_block(blocks_.key(), parent, std::span(sequence.token_ids).subspan(i * size, size)));
  }
}

// Names the full blocks among the first num_tokens tokens, whose KV is in the cache now.
void Scheduler::publish(Sequence& sequence, int64_t num_tokens) {
  if (!blocks_.caches_prefixes()) return;
  const int64_t num_full = num_tokens / blocks_.block_size();
  if (num_full <= sequence.num_published) return;
  make_hashes(sequence, num_full);
  for (; sequence.num_published < num_full; ++sequence.num_published) {
    const auto i = static_cast<size_t>(sequence.num_published);
    blocks_.publish(sequence.blocks[i], sequence.hashes[i]);
  }
}

void Scheduler::check_integrity() const {
  std::vector<const std::vector<BlockId>*> tables;
  size_t num_alive = 0, num_queued = 0, num_phases = 0;
  for (const auto& [id, group] : requests_) {
    OCTET_CHECK(group.num_alive > 0);
    num_queued += group.waits_in_queue;
    int32_t alive = 0;
    for (const auto& sequence : group.sequences) {
      if (!sequence) continue;
      ++alive;
      tables.push_back(&sequence->blocks);
      OCTET_CHECK(sequences_.at(sequence->id) == sequence.get());
      const bool runs = sequence->phase == Sequence::Phase::kRunning;
      OCTET_CHECK(running_.contains(sequence->key) == runs);
      OCTET_CHECK(waiting_.contains(sequence->key) == (sequence->phase == Sequence::Phase::kWaiting));
      OCTET_CHECK(runs || sequence->blocks.empty());
      const int64_t room = static_cast<int64_t>(sequence->blocks.size()) * blocks_.block_size();
      OCTET_CHECK(sequence->num_computed_tokens <= room);
      num_phases += sequence->phase == Sequence::Phase::kHeld;
    }
    OCTET_CHECK(alive == group.num_alive);
    num_alive += static_cast<size_t>(alive);
  }
  OCTET_CHECK(num_alive == sequences_.size());
  OCTET_CHECK(num_alive == num_phases + running_.size() + waiting_.size());
  OCTET_CHECK(static_cast<int64_t>(num_queued) == num_queued_requests_);
  OCTET_CHECK(num_running() <= options_.max_num_seqs);
  blocks_.check_integrity(tables);
}

}  // namespace octet
