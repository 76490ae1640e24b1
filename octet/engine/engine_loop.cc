#include "octet/engine/engine_loop.h"

#include <chrono>
#include <utility>

#include "octet/base/error.h"
#include "octet/base/log.h"

namespace octet {
namespace {

int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

EngineLoop::EngineLoop(const SchedulerOptions& options, StepRunner& runner, Overlap overlap,
                       std::function<void()> on_delivered, std::function<void(int64_t)> on_step)
    : runner_(runner),
      overlap_(overlap),
      on_delivered_(std::move(on_delivered)),
      on_step_(std::move(on_step)),
      scheduler_(options),
      published_{.last_progress_us = now_us()},
      thread_([this] { run(); }) {}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

SubmitResult EngineLoop::submit(Request request) {
  const auto shared = std::make_shared<const Request>(std::move(request));
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || fault_) return SubmitResult::kStopped;
    scheduler_.check(*shared);
    if (by_id_.contains(shared->id)) fail(ErrorCode::kInvalid, "request id \"{}\" is in use", shared->id);
    const bool was_idle = scheduler_.idle();
    if (!scheduler_.add(shared)) return SubmitResult::kQueueFull;
    if (was_idle) metrics_.last_progress_us = now_us();  // there was none to be made before
    Live& live = live_[shared.get()];
    live.times.arrival_us = now_us();
    live.cumulative_logprobs.resize(static_cast<size_t>(shared->sampling.n), 0.0);
    if (shared->sampling.prompt_logprobs) live.prompt_logprobs.emplace_back();  // nothing precedes the first token
    by_id_.emplace(shared->id, shared);
    publish_metrics();
  }
  wake_.notify_all();
  return SubmitResult::kAccepted;
}

void EngineLoop::abort(const std::string& request_id) {
  {
    const std::lock_guard lock(mutex_);
    collect(scheduler_.abort(request_id));
    publish_metrics();
  }
  wake_.notify_all();
}

void EngineLoop::abort_sequence(const std::string& request_id, int32_t index) {
  {
    const std::lock_guard lock(mutex_);
    collect(scheduler_.abort_sequence(request_id, index));
    publish_metrics();
  }
  wake_.notify_all();
}

void EngineLoop::abort_waiting(const std::string& request_id) {
  {
    const std::lock_guard lock(mutex_);
    collect(scheduler_.abort_waiting(request_id));
    publish_metrics();
  }
  wake_.notify_all();
}

void EngineLoop::reset_prefix_cache() {
  const std::lock_guard lock(mutex_);
  scheduler_.reset_prefix_cache();
}

void EngineLoop::when_idle(std::function<void()> work) {
  std::packaged_task<void()> task(std::move(work));
  std::future<void> done = task.get_future();
  {
    const std::lock_guard lock(mutex_);
    OCTET_CHECK(!stopping_ && !fault_ && !idle_work_.valid());
    idle_work_ = std::move(task);
  }
  wake_.notify_all();
  done.get();
}

EngineMetrics EngineLoop::metrics() const {
  const std::lock_guard lock(published_mutex_);
  return published_;
}

// With mutex_ held.
void EngineLoop::publish_metrics() {
  EngineMetrics metrics = metrics_;
  metrics.num_running = scheduler_.num_running();
  metrics.num_waiting = scheduler_.num_waiting();
  metrics.num_preemptions = scheduler_.num_preemptions();
  metrics.kv_usage =
      static_cast<double>(scheduler_.blocks().num_used()) / static_cast<double>(scheduler_.blocks().num_blocks());
  const std::lock_guard lock(published_mutex_);
  published_ = metrics;
}

std::optional<std::string> EngineLoop::fault() const {
  const std::lock_guard lock(mutex_);
  return fault_;
}

void EngineLoop::run() {
  try {
    while (true) {
      StepPlan plan;
      {
        std::unique_lock lock(mutex_);
        if (!wait_for_work(lock, plan)) break;
      }
      if (!plan.empty()) run_step(plan);
    }
    if (next_started_) runner_.wait();
  } catch (const std::exception& error) {  // the engine's catch site: a rank failed, or an invariant is broken
    stop_with(error.what());
    return;
  }
  std::unique_lock lock(mutex_);
  collect(scheduler_.abort_all(FinishReason::kAbort, ""));
  deliver(lock);
}

bool EngineLoop::wait_for_work(std::unique_lock<std::mutex>& lock, StepPlan& plan) {
  const auto is_idle = [&] { return events_.empty() && next_.empty() && scheduler_.idle(); };
  wake_.wait(lock, [&] { return stopping_ || idle_work_.valid() || !is_idle(); });
  if (stopping_) return false;
  if (is_idle()) {
    std::packaged_task<void()> work = std::exchange(idle_work_, {});
    lock.unlock();
    work();
    return true;
  }
  if (next_.empty()) {
    plan = scheduler_.plan();
  } else {
    plan = std::exchange(next_, {});
    if (!next_started_) scheduler_.reconcile(plan);
  }
  note_starts(plan);
  publish_metrics();
  if (plan.empty()) deliver(lock);  // else while the step runs
  return true;
}

void EngineLoop::run_step(StepPlan& plan) {
  if (!std::exchange(next_started_, false)) runner_.start(plan);
  {
    std::unique_lock lock(mutex_);
    deliver(lock);  // what the last step brought
    if (overlap_ == Overlap::kYes) next_ = scheduler_.plan();
  }
  // What it does for sequences that turn out to have ended is in vain; commit knows no such sequence.
  next_started_ = !next_.empty() && runner_.start_behind(next_);
  StepResult result = runner_.wait();
  if (on_step_) on_step_(plan.num_tokens);
  const std::lock_guard lock(mutex_);
  ++metrics_.num_steps;
  metrics_.last_progress_us = now_us();
  collect(scheduler_.commit(plan, std::move(result)));
  publish_metrics();
}

void EngineLoop::stop_with(const std::string& fault) {
  log_line(LogLevel::kError, fmt::format("the engine stops: {}", fault));
  std::unique_lock lock(mutex_);
  fault_ = fault;
  next_ = {};
  collect(scheduler_.abort_all(FinishReason::kError, fault));
  publish_metrics();
  deliver(lock);
}

void EngineLoop::note_starts(const StepPlan& plan) {
  for (const SequenceStart& start : plan.starts) {
    auto found = live_.find(start.request.get());
    if (found == live_.end() || found->second.times.first_scheduled_us != 0) continue;
    found->second.times.first_scheduled_us = now_us();
    metrics_.prompt_tokens += static_cast<int64_t>(start.request->prompt_token_ids.size());
  }
}

// Turns updates into one event per request.
void EngineLoop::collect(std::vector<SequenceUpdate> updates) {
  const int64_t now = now_us();
  events_.reserve(events_.size() + updates.size());
  for (SequenceUpdate& update : updates) {
    Live& live = live_.at(update.request.get());
    for (PositionLogprobs& position : update.prompt_logprobs) live.prompt_logprobs.push_back(std::move(position));
    if (!update.token_id && update.finish_reason == FinishReason::kNone) continue;  // prompt rows only: sent later
    if (std::exchange(live.batch, batch_) != batch_) {
      live.event = events_.size();
      events_.emplace_back(update.request, RequestEvent{});
    }
    RequestEvent& event = events_[live.event].second;
    add_delta(update, now, live, event);
    event.times = live.times;
    event.finished = update.request_finished;
    if (!update.request_finished) continue;
    by_id_.erase(update.request->id);
    live_.erase(update.request.get());
  }
}

void EngineLoop::add_delta(SequenceUpdate& update, int64_t now, Live& live, RequestEvent& event) {
  SequenceDelta delta{.index = update.index,
                      .token_ids = {},
                      .logprobs = {},
                      .cumulative_logprob = 0.0,
                      .finish_reason = update.finish_reason,
                      .stop_token_id = update.stop_token_id,
                      .error = std::move(update.error)};
  double& cumulative = live.cumulative_logprobs[static_cast<size_t>(update.index)];
  if (update.token_id) {
    delta.token_ids.push_back(*update.token_id);
    ++metrics_.generated_tokens;
    live.times.last_token_us = now;
    if (live.times.first_token_us == 0) {
      live.times.first_token_us = live.times.last_token_us;
      metrics_.cached_prompt_tokens += update.num_cached_tokens;
    }
    if (!update.logprobs.empty()) {
      cumulative += update.logprobs.front().logprob;
      delta.logprobs.push_back(std::move(update.logprobs));
    }
  }
  delta.cumulative_logprob = cumulative;
  for (PositionLogprobs& position : live.prompt_logprobs) event.prompt_logprobs.push_back(std::move(position));
  live.prompt_logprobs.clear();
  event.num_cached_tokens = std::max(event.num_cached_tokens, static_cast<int32_t>(update.num_cached_tokens));
  event.deltas.push_back(std::move(delta));
}

// Calls on_event without the lock: callbacks may submit and abort.
void EngineLoop::deliver(std::unique_lock<std::mutex>& lock) {
  if (events_.empty()) return;
  std::vector<Addressed> events = std::exchange(events_, {});
  ++batch_;
  lock.unlock();
  for (auto& [request, event] : events) {
    if (request->on_event) request->on_event(std::move(event));
  }
  if (on_delivered_) on_delivered_();
  events.clear();  // may destroy requests, and what their callbacks hold, also without the lock
  lock.lock();
}

}  // namespace octet
