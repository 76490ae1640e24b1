#include "octet/server/generation.h"

#include <algorithm>
#include <ctime>

#include "octet/base/log.h"

namespace octet {
namespace {

constexpr std::chrono::seconds kSilence{15};  // then a stream gets a comment

void append(std::vector<PositionLogprobs>& to, const std::vector<PositionLogprobs>& from, size_t num_last) {
  to.insert(to.end(), from.end() - static_cast<std::ptrdiff_t>(std::min(num_last, from.size())), from.end());
}

// Nine letters and digits, as Mistral's templates want them; no two calls of a request have the same.
std::string tool_call_id(const std::string& request_id, int64_t choice, int64_t number) {
  uint64_t hash = std::hash<std::string>()(fmt::format("{}/{}/{}", request_id, choice, number));
  std::string id;
  for (int i = 0; i < 9; ++i, hash /= 36) id.push_back("0123456789abcdefghijklmnopqrstuvwxyz"[hash % 36]);
  return id;
}

double milliseconds(int64_t from_us, int64_t to_us) {
  return from_us > 0 && to_us > from_us ? static_cast<double>(to_us - from_us) / 1e3 : 0.0;
}

}  // namespace

Generation::Generation(const ServedModel& model, ServerMetrics& metrics, std::shared_ptr<HttpReply> reply,
                       GenerationJob job)
    : model_(model),
      metrics_(metrics),
      reply_(std::move(reply)),
      job_(std::move(job)),
      choices_(job_.prompts.size() * static_cast<size_t>(job_.request.sampling.n)),
      last_token_us_(job_.prompts.size(), 0),
      num_cached_(job_.prompts.size(), 0),
      num_open_(job_.prompts.size()),
      last_sent_(Clock::now()) {
  job_.format->begin({.id = job_.format->id_prefix() + job_.request_id,
                      .model = job_.request.model,
                      .fingerprint = model_.fingerprint(),
                      .created = std::time(nullptr)});
  for (const Prompt& prompt : job_.prompts) num_prompt_tokens_ += static_cast<int64_t>(prompt.token_ids.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].news.index = static_cast<int64_t>(i);
    choices_[i].news.call_was_asked_for = job_.calls_named_tool;
    choices_[i].splitter = job_.splitter;
  }
}

void Generation::start() {
  // They keep this alive until the answer has been taken or the client has left: the engine may be done long before.
  HttpReplyEvents events;
  events.on_gone = [self = shared_from_this()] { self->leave(); };
  events.on_drained = [self = shared_from_this()] {
    const std::lock_guard lock(self->mutex_);
    if (self->job_.request.stream) self->flush();
  };
  reply_->watch(std::move(events));
  const SubmitOptions options{
      .priority = job_.request.priority, .cache_salt = job_.request.cache_salt, .pooling = job_.pooling};
  for (size_t i = 0; i < job_.prompts.size(); ++i) {
    const auto on_output = [self = shared_from_this(), i](const RequestOutput& output,
                                                          std::span<const OutputDelta> deltas) {
      self->on_output(i, output, deltas);
    };
    try {
      metrics_.request_started(static_cast<int64_t>(job_.prompts[i].token_ids.size()), job_.request.sampling);
      const std::string id = model_.llm().submit(job_.prompts[i], job_.request.sampling, on_output, options);
      const std::lock_guard lock(mutex_);
      engine_ids_.push_back(id);
      if (!gone_ && !aborted_) continue;
    } catch (...) {  // the others end in silence: the caller answers
      {
        const std::lock_guard lock(mutex_);
        gone_ = true;
      }
      abort_in_engine();
      throw;
    }
    abort_in_engine();
  }
}

void Generation::abort_in_engine() {
  std::vector<std::string> ids;
  {
    const std::lock_guard lock(mutex_);
    ids = engine_ids_;
  }
  for (const std::string& id : ids) model_.llm().abort(id);
}

void Generation::leave() {
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
  }
  abort_in_engine();
}

void Generation::abort() {
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
  }
  abort_in_engine();
}

bool Generation::is_called(std::string_view id) const {
  const std::string prefix = job_.format->id_prefix();
  if (id.starts_with(prefix) && id.substr(prefix.size()) == job_.request_id) return true;
  return id == job_.request_id;
}

void Generation::end_waiting(Clock::time_point arrived) {
  if (job_.arrival > arrived) return;
  std::vector<std::string> ids;
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || finished_ || aborted_) return;
    for (size_t i = 0; i < engine_ids_.size(); ++i) {
      if (last_token_us_[i] == 0) ids.push_back(engine_ids_[i]);
    }
  }
  for (const std::string& id : ids) model_.llm().abort_waiting(id);
}

void Generation::on_output(size_t prompt, const RequestOutput& output, std::span<const OutputDelta> deltas) {
  const std::lock_guard lock(mutex_);
  try {
    take(prompt, output, deltas);
    if (gone_ || finished_) return;
    for (const CompletionOutput& sequence : output.outputs) {
      if (sequence.finish_reason == FinishReason::kError) return fail_with(failure(sequence.error));
    }
    if (waited_too_long_) return fail_with({503, "queue_timeout", "The request has waited too long for its turn."});
    if (job_.request.stream) return flush();
    if (num_open_ == 0) send_whole();
  } catch (const ApiError& error) {
    fail_with(error);
  } catch (const std::exception& error) {  // this request's fault, not the output thread's
    log_line(LogLevel::kError, fmt::format("answering failed: {}", error.what()), {{"request_id", job_.request_id}});
    fail_with(failure(""));
  }
}

void Generation::take(size_t prompt, const RequestOutput& output, std::span<const OutputDelta> deltas) {
  bool has_tokens = false;
  if (last_token_us_[prompt] == 0) open_choices(prompt, output);
  for (const OutputDelta& delta : deltas) {
    has_tokens = has_tokens || !delta.token_ids.empty();
    take_delta(prompt, output, delta);
  }
  num_cached_tokens_ += output.num_cached_tokens - std::exchange(num_cached_[prompt], output.num_cached_tokens);
  if ((has_tokens || output.finished) && last_token_us_[prompt] == 0) {
    job_.ticket.add_waiting_tokens(-static_cast<int64_t>(output.prompt_token_ids.size()));
  }
  measure(prompt, output, has_tokens);
  if (!output.finished) return;
  if (job_.pooling) choice(prompt, 0).news.pooled = output.pooled;
  waited_too_long_ = waited_too_long_ || (output.times.first_scheduled_us == 0 && !aborted_);
  times_ = output.times;
  metrics_.request_finished(output, std::chrono::duration<double>(Clock::now() - job_.arrival).count());
  if (--num_open_ > 0) return;
  job_.ticket = {};
  if (job_.trace) trace(output);
}

// The names are vLLM's. Times are those of the prompt that ended last, in seconds.
void Generation::trace(const RequestOutput& last) {
  const auto now = Clock::now();
  const auto ns = [](auto duration) { return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count(); };
  const int64_t end_ns = ns(std::chrono::system_clock::now().time_since_epoch());
  const SamplingParams& sampling = job_.request.sampling;
  TraceSpan span{.parent = *job_.trace,
                 .span_id = random_hex(8),
                 .name = "llm_request",
                 .start_unix_ns = end_ns - ns(now - job_.arrival),
                 .end_unix_ns = end_ns,
                 .attributes = {{"gen_ai.request.id", job_.format->id_prefix() + job_.request_id},
                                {"gen_ai.response.model", job_.request.model},
                                {"gen_ai.request.temperature", sampling.temperature},
                                {"gen_ai.request.top_p", sampling.top_p},
                                {"gen_ai.request.n", int64_t{sampling.n}},
                                {"gen_ai.usage.num_sequences", static_cast<int64_t>(choices_.size())},
                                {"gen_ai.usage.prompt_tokens", num_prompt_tokens_},
                                {"gen_ai.usage.completion_tokens", num_output_tokens_},
                                {"gen_ai.latency.e2e", std::chrono::duration<double>(now - job_.arrival).count()}},
                 .error = {}};
  const auto add_seconds = [&](const char* name, int64_t from_us, int64_t to_us) {
    if (from_us > 0 && to_us > 0) span.attributes.emplace_back(name, milliseconds(from_us, to_us) / 1e3);
  };
  if (sampling.max_tokens) span.attributes.emplace_back("gen_ai.request.max_tokens", int64_t{*sampling.max_tokens});
  add_seconds("gen_ai.latency.time_in_queue", times_.arrival_us, times_.first_scheduled_us);
  add_seconds("gen_ai.latency.time_to_first_token", times_.arrival_us, times_.first_token_us);
  add_seconds("gen_ai.latency.time_in_model_prefill", times_.first_scheduled_us, times_.first_token_us);
  add_seconds("gen_ai.latency.time_in_model_decode", times_.first_token_us, times_.last_token_us);
  add_seconds("gen_ai.latency.time_in_model_inference", times_.first_scheduled_us, times_.last_token_us);
  for (const CompletionOutput& sequence : last.outputs) {
    if (sequence.finish_reason == FinishReason::kError) span.error = sequence.error;
  }
  job_.tracer->offer(std::move(span));
}

std::optional<RequestStatus> Generation::status(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (gone_ || finished_) return std::nullopt;
  return RequestStatus{.id = job_.request_id,
                       .age_seconds = std::chrono::duration<double>(now - job_.arrival).count(),
                       .has_begun = std::ranges::any_of(last_token_us_, [](int64_t us) { return us > 0; }),
                       .prompt_tokens = num_prompt_tokens_,
                       .cached_tokens = num_cached_tokens_,
                       .output_tokens = num_output_tokens_};
}

// What stands before a choice's own text, known with the first event.
void Generation::open_choices(size_t prompt, const RequestOutput& output) {
  for (int32_t index = 0; index < job_.request.sampling.n; ++index) {
    ChoiceNews& news = choice(prompt, index).news;
    if (!news.opens) continue;
    if (job_.request.return_token_ids) news.prompt_token_ids = output.prompt_token_ids;
    if (job_.request.echo) news.echo = job_.echo.empty() ? output.prompt.value_or("") : job_.echo;
    if (!output.prompt_logprobs.empty()) {
      if (job_.request.echo) {
        news.echoed_token_ids = output.prompt_token_ids;
        news.echoed_logprobs = output.prompt_logprobs;
      }
      news.prompt_logprobs = output.prompt_logprobs;
    }
  }
}

void Generation::take_delta(size_t prompt, const RequestOutput& output, const OutputDelta& delta) {
  Choice& taker = choice(prompt, delta.index);
  ChoiceNews& news = taker.news;
  const CompletionOutput& sequence = output.outputs[static_cast<size_t>(delta.index)];
  take_text(taker, delta, sequence.finish_reason != FinishReason::kNone);
  news.token_ids.insert(news.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  if (job_.request.sampling.logprobs) append(news.logprobs, sequence.logprobs, delta.token_ids.size());
  num_output_tokens_ += static_cast<int64_t>(delta.token_ids.size());
  news.finish_reason = sequence.finish_reason;
  news.stop_reason = sequence.stop_reason;
}

void Generation::take_text(Choice& choice, const OutputDelta& delta, bool ends) {
  ChoiceNews& news = choice.news;
  if (!choice.splitter) {
    news.text += delta.text;
    return;
  }
  if (choice.splitter->in_reasoning()) num_reasoning_tokens_ += static_cast<int64_t>(delta.token_ids.size());
  const auto add = [&](OutputSplitter::Piece piece) {
    if (job_.include_reasoning) news.reasoning += piece.reasoning;
    news.text += piece.text;
    for (ToolCall& call : piece.calls) {
      if (!call.continues) {
        const int64_t number = news.num_calls_before + num_begun(news);
        news.call_ids.push_back(tool_call_id(job_.request_id, news.index, number));
      }
      news.calls.push_back(std::move(call));
    }
  };
  add(choice.splitter->push(delta.text));
  if (ends) add(choice.splitter->finish());
}

void Generation::measure(size_t prompt, const RequestOutput& output, bool has_tokens) {
  if (!has_tokens) return;
  int64_t& last = last_token_us_[prompt];
  if (last == 0) {
    metrics_.first_token(std::chrono::duration<double>(Clock::now() - job_.arrival).count());
  } else {
    metrics_.next_token(milliseconds(last, output.times.last_token_us) / 1e3);
  }
  last = output.times.last_token_us;
}

Generation::Choice& Generation::choice(size_t prompt, int32_t index) {
  return choices_[prompt * static_cast<size_t>(job_.request.sampling.n) + static_cast<size_t>(index)];
}

bool Generation::is_due(const Choice& choice) const {
  const ChoiceNews& news = choice.news;
  if (choice.ended) return false;
  if (news.finish_reason != FinishReason::kNone) return true;
  if (news.token_ids.empty()) return false;
  const auto count = static_cast<int64_t>(news.token_ids.size());
  if (!news.opens && count < job_.request.stream_interval) return false;
  // A token without text (half a character) says nothing, unless it is the tokens that are wanted.
  return !news.text.empty() || !news.reasoning.empty() || !news.calls.empty() || job_.request.sampling.logprobs ||
         job_.request.return_token_ids;
}

void Generation::flush() {
  if (gone_ || finished_) return;
  if (!reply_->writable()) return;  // on_drained comes back
  std::string text;
  bool all_ended = num_open_ == 0;
  for (Choice& choice : choices_) {
    if (is_due(choice)) flush_choice(choice, text);
    all_ended = all_ended && choice.ended;
  }
  if (all_ended) job_.format->write_end(usage(), text);
  send_text(std::move(text));
  if (all_ended) {
    finished_ = true;
    reply_->finish();
  }
}

void Generation::flush_choice(Choice& choice, std::string& text) {
  ChoiceNews& news = choice.news;
  const bool ends = news.finish_reason != FinishReason::kNone;
  job_.format->write_news(news, usage(), ends && num_open_ == 0 && choices_.size() == 1, text);
  choice.ended = ends;
  ChoiceNews next;
  next.index = news.index;
  next.opens = false;
  next.text_offset = news.text_offset;
  next.num_calls_before = news.num_calls_before + num_begun(news);
  next.call_was_asked_for = news.call_was_asked_for;
  news = std::move(next);
}

void Generation::send_text(std::string text) {
  if (text.empty()) return;
  last_sent_ = Clock::now();
  if (std::exchange(started_, true)) return reply_->write(text);
  reply_->start({.status = 200,
                 .headers = {{"Content-Type", "text/event-stream; charset=utf-8"},
                             {"Cache-Control", "no-cache"},
                             {"X-Accel-Buffering", "no"}},
                 .body = std::move(text)});
}

void Generation::keep_alive(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (!job_.request.stream || gone_ || finished_ || now - last_sent_ < kSilence) return;
  if (reply_->writable()) send_text(": ping\n\n");
}

void Generation::send_whole() {
  std::vector<ChoiceNews> choices;
  for (Choice& choice : choices_) choices.push_back(std::move(choice.news));
  HttpResponse response = json_response(200, job_.format->whole(std::move(choices), usage()));  // may throw
  finished_ = true;
  reply_->send(std::move(response));
}

ApiError Generation::failure(const std::string& message) const {
  const bool engine_stopped = model_.llm().engine().fault().has_value();
  ApiError error(500, "generation_failed",
                 engine_stopped || message.empty() ? "The engine failed; the server's log says why."
                                                   : "Generation failed: " + message);
  error.headers.emplace_back("x-should-retry", "false");
  return error;
}

// One sequence failed, or the engine: the whole request ends.
void Generation::fail_with(ApiError error) {
  if (std::exchange(finished_, true)) return;
  for (const std::string& id : engine_ids_) model_.llm().abort(id);
  if (!started_) return reply_->send(error_response(error, job_.format->error_wording()));
  std::string text;
  job_.format->write_error(error, text);
  reply_->write(text);
  reply_->finish();
}

AnswerUsage Generation::usage() const {
  AnswerUsage usage{.num_prompt_tokens = num_prompt_tokens_,
                    .num_cached_tokens = num_cached_tokens_,
                    .num_output_tokens = num_output_tokens_,
                    .num_reasoning_tokens = std::nullopt,
                    .times = times_};
  if (job_.splitter) usage.num_reasoning_tokens = num_reasoning_tokens_;
  return usage;
}

}  // namespace octet
