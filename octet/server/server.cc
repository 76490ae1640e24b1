#include "octet/server/server.h"

#include <csignal>
#include <future>
#include <optional>

#include "octet/base/log.h"

namespace octet {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kTick{1000};
constexpr milliseconds kLoadingTick{50};
constexpr milliseconds kAbortPatience{5000};  // for the last words of aborted requests
constexpr milliseconds kSendPatience{2000};   // for clients to take them

// SIGTERM and SIGINT, waited for instead of interrupting; every thread started later inherits the mask.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
  }
  bool wait(milliseconds time) const {
    const timespec limit{.tv_sec = time.count() / 1000, .tv_nsec = time.count() % 1000 * 1'000'000};
    return sigtimedwait(&set_, nullptr, &limit) > 0;
  }

 private:
  sigset_t set_;
};

// vLLM's line, which people grep for.
class StatsLog {
 public:
  explicit StatsLog(std::chrono::seconds interval) : interval_(interval) {}

  void tick(const EngineMetrics& metrics) {
    const auto now = Clock::now();
    if (interval_.count() == 0 || now - last_time_ < interval_) return;
    const double seconds = std::chrono::duration<double>(now - last_time_).count();
    const auto rate = [&](int64_t a, int64_t b) { return static_cast<double>(a - b) / seconds; };
    const bool busy = metrics.num_steps != last_.num_steps || metrics.num_running + metrics.num_waiting > 0;
    const double hit_rate = metrics.prompt_tokens > 0 ? 100.0 * static_cast<double>(metrics.cached_prompt_tokens) /
                                                            static_cast<double>(metrics.prompt_tokens)
                                                      : 0.0;
    if (busy) {
      log_info(
          "Engine 000: Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, "
          "Running: {} reqs, Waiting: {} reqs, GPU KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
          rate(metrics.prompt_tokens, last_.prompt_tokens), rate(metrics.generated_tokens, last_.generated_tokens),
          metrics.num_running, metrics.num_waiting, 100.0 * metrics.kv_usage, hit_rate);
    }
    last_ = metrics;
    last_time_ = now;
  }

 private:
  const std::chrono::seconds interval_;
  EngineMetrics last_;
  Clock::time_point last_time_ = Clock::now();
};

LlmOptions llm_options(const ServeOptions& options, ApiServer& api) {
  LlmOptions llm = options.llm;
  // Places are given out by the server; the engine's own bound is never met.
  llm.engine.max_queued_requests = static_cast<int32_t>(options.api.max_sequences + options.limits.max_sequences);
  llm.engine.on_step = [&metrics = api.metrics()](int64_t num_tokens) { metrics.step(num_tokens); };
  llm.engine.on_load_progress = [&api, shown = options.llm.engine.on_load_progress](int64_t done, int64_t total) {
    api.lifecycle().set_progress(done, total);
    if (shown) shown(done, total);
  };
  return llm;
}

MetricsFacts metrics_facts(const ServeOptions& options, const ServedModel& model) {
  const EngineOptions& engine = options.llm.engine;
  return {.model_name = model.facts().names.front(),
          .max_model_len = model.facts().max_model_len,
          .block_size = engine.block_size,
          .enable_prefix_caching = engine.enable_prefix_caching,
          .gpu_memory_utilization = engine.gpu_memory_utilization,
          .report = model.llm().engine().report()};
}

void load(const ServeOptions& options, const Signals& signals, ApiServer& api, HttpServer& http) {
  auto loading = std::async(std::launch::async, [&, llm = llm_options(options, api)] {
    auto model = std::make_unique<const ServedModel>(llm, options.model_names, options.limits);
    api.metrics().add_model(metrics_facts(options, *model));
    return model;
  });
  while (loading.wait_for(milliseconds(0)) != std::future_status::ready) {
    if (!signals.wait(kLoadingTick)) continue;
    log_info("a signal came while the model was loading: the end");
    http.stop(kSendPatience);
    std::_Exit(0);  // nothing can call a loading thread off, and nothing of it needs tidying
  }
  api.set_model(loading.get());
  api.lifecycle().set_state(Lifecycle::State::kReady);
  if (options.on_ready) options.on_ready(*api.model(), http.url());
}

// Waits for requests to end; true when a signal came first.
bool wait_for_requests(const Signals& signals, ApiServer& api, milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (api.num_requests() > 0 && Clock::now() < deadline) {
    if (signals.wait(milliseconds(20))) return true;
    if (api.faulty()) return false;
  }
  return false;
}

void drain(const ServeOptions& options, const Signals& signals, ApiServer& api) {
  api.lifecycle().set_state(Lifecycle::State::kDraining);
  log_info("draining: {} requests have up to {} s", api.num_requests(), options.shutdown_timeout.count());
  if (wait_for_requests(signals, api, options.shutdown_timeout)) log_info("a second signal: ending at once");
  if (api.num_requests() == 0) return;
  log_info("aborting {} requests", api.num_requests());
  api.abort_all();
  wait_for_requests(signals, api, kAbortPatience);
}

}  // namespace

int serve(const ServeOptions& options) {
  const Signals signals;
  ApiServer api(options.api);
  HttpServer http(options.http, api);
  http.start();
  log_info("listening on {}; loading {}", http.url(), options.llm.model);
  load(options, signals, api, http);
  StatsLog stats(options.stats_interval);
  while (!signals.wait(kTick)) {
    api.tick();
    stats.tick(api.model()->llm().engine().metrics());
    if (!api.faulty()) continue;
    log_line(LogLevel::kError, "the engine has failed: the server ends");
    http.stop(kSendPatience);
    return 1;
  }
  drain(options, signals, api);
  api.lifecycle().set_state(Lifecycle::State::kStopped);
  http.stop(kSendPatience);
  log_info("stopped");
  return 0;
}

}  // namespace octet
