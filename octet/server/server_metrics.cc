#include "octet/server/server_metrics.h"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <atomic>
#include <ctime>
#include <filesystem>
#include <fstream>

namespace octet {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;
using Labels = prometheus::Labels;

// vLLM's, and finer ones below, where its first bucket holds all of a fast device's.
const Buckets& first_token_buckets() {
  static const Buckets kBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                   1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
  return kBuckets;
}
const Buckets& token_buckets() {
  static const Buckets kBuckets = {.001, .002, .003, .005, .0075, .01, .025, .05, .075, .1, .15, .2,
                                   .3,   .4,   .5,   .75,  1,     2.5, 5,    7.5, 10,   20, 40,  80};
  return kBuckets;
}
const Buckets& request_buckets() {
  static const Buckets kBuckets = {.005, .01, .025, .05, .1, .2, .3, .5,  .8,  1,   1.5, 2,    2.5, 5,
                                   10,   15,  20,   30,  40, 50, 60, 120, 240, 480, 960, 1920, 7680};
  return kBuckets;
}
const Buckets& step_buckets() {
  static const Buckets kBuckets = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
  return kBuckets;
}

// 1, 2, 5, 10, ... up to `most`.
Buckets decades(int64_t most) {
  Buckets buckets;
  for (int64_t unit = 1;; unit *= 10) {
    for (const int64_t step : {1, 2, 5}) {
      if (unit * step > most) return buckets;
      buckets.push_back(static_cast<double>(unit * step));
    }
  }
}

double seconds_between(int64_t from_us, int64_t to_us) {
  return from_us > 0 && to_us > from_us ? static_cast<double>(to_us - from_us) / 1e6 : 0.0;
}

void set_to(Counter& counter, int64_t value) {
  const double more = static_cast<double>(value) - counter.Value();
  if (more > 0) counter.Increment(more);
}

// Kilobytes of a line such as "VmRSS:  1234 kB".
double status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    double kilobytes = 0;
    if (word == key && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

double num_open_files() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end; it.increment(error))
    ++count;
  return count;
}

}  // namespace

struct ServerMetrics::Series {
  prometheus::Registry registry;
  Labels labels;
  bool has_model = false;

  Counter& counter(const char* name, const char* help, const Labels& labels_of) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels_of);
  }
  Gauge& gauge(const char* name, const char* help, const Labels& labels_of) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels_of);
  }
  Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }
  Labels with(const char* key, const std::string& value) const {
    Labels all = labels;
    all[key] = value;
    return all;
  }
  void add_engine_series(const MetricsFacts& facts);
  void add_request_series(const MetricsFacts& facts);

  // Of the process; there before the model is.
  prometheus::Family<Counter>* http_requests = nullptr;
  prometheus::Family<Histogram>* http_seconds = nullptr;
  Gauge *memory = nullptr, *files = nullptr;
  Counter *processor = nullptr, *rejected = nullptr;

  Gauge *running = nullptr, *waiting = nullptr, *waiting_for_room = nullptr, *usage = nullptr, *old_usage = nullptr;
  Counter *preemptions = nullptr, *queries = nullptr, *hits = nullptr, *old_queries = nullptr, *old_hits = nullptr;
  Counter *prompt_tokens = nullptr, *generation_tokens = nullptr, *cached_tokens = nullptr;
  std::array<Counter*, 5> success{};  // by FinishReason
  Histogram *ttft = nullptr, *itl = nullptr, *tpot = nullptr, *old_tpot = nullptr, *e2e = nullptr, *queue = nullptr,
            *inference = nullptr, *prefill = nullptr, *decode = nullptr, *of_prompt = nullptr, *of_output = nullptr,
            *max_output = nullptr, *params_max = nullptr, *params_n = nullptr, *iteration = nullptr;
};

ServerMetrics::ServerMetrics() : series_(std::make_unique<Series>()) {
  Series& s = *series_;
  s.http_requests =
      &prometheus::BuildCounter().Name("http_requests_total").Help("HTTP requests answered.").Register(s.registry);
  s.http_seconds = &prometheus::BuildHistogram()
                        .Name("http_request_duration_seconds")
                        .Help("From a request's first byte to its answer's last.")
                        .Register(s.registry);
  s.memory = &s.gauge("process_resident_memory_bytes", "Resident memory.", {});
  s.files = &s.gauge("process_open_fds", "Open file descriptors.", {});
  s.processor = &s.counter("process_cpu_seconds_total", "Processor time of all threads.", {});
  s.gauge("process_start_time_seconds", "When the server started, in Unix time.", {}).SetToCurrentTime();
  s.rejected = &s.counter("octet:queue_rejected_total", "Requests answered with 503 because the queue was full.", {});
}

ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::Series::add_engine_series(const MetricsFacts& facts) {
  running = &gauge("vllm:num_requests_running", "Number of requests in model execution batches.", labels);
  waiting = &gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", labels);
  waiting_for_room =
      &gauge("vllm:num_requests_waiting_by_reason", "Waiting requests by reason.", with("reason", "capacity"));
  gauge("vllm:num_requests_waiting_by_reason", "Waiting requests by reason.", with("reason", "deferred"));
  usage = &gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", labels);
  old_usage = &gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.", labels);
  preemptions = &counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", labels);
  queries = &counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in queried tokens.", labels);
  hits = &counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in cached tokens.", labels);
  old_queries = &counter("vllm:gpu_prefix_cache_queries_total", "Older name of vllm:prefix_cache_queries.", labels);
  old_hits = &counter("vllm:gpu_prefix_cache_hits_total", "Older name of vllm:prefix_cache_hits.", labels);
  prompt_tokens = &counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", labels);
  generation_tokens = &counter("vllm:generation_tokens_total", "Number of generation tokens processed.", labels);
  cached_tokens =
      &counter("vllm:prompt_tokens_cached_total", "Number of prompt tokens found in the prefix cache.", labels);
  Labels info = labels;
  info["block_size"] = std::to_string(facts.block_size);
  info["num_gpu_blocks"] = std::to_string(facts.report.num_kv_blocks);
  info["cache_dtype"] = facts.report.kv_cache_dtype;
  info["enable_prefix_caching"] = facts.enable_prefix_caching ? "True" : "False";
  info["gpu_memory_utilization"] = fmt::format("{}", facts.gpu_memory_utilization);
  info["kv_cache_size_tokens"] = std::to_string(facts.report.kv_cache_tokens);
  info["kv_cache_max_concurrency"] =
      fmt::format("{:.2f}", static_cast<double>(facts.report.kv_cache_tokens) /
                                static_cast<double>(std::max<int64_t>(1, facts.max_model_len)));
  gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", info).Set(1);
  Labels model = labels;
  model["architecture"] = facts.report.architecture;
  model["quantization"] = facts.report.quantization;
  model["dtype"] = facts.report.dtype;
  model["kv_cache_dtype"] = facts.report.kv_cache_dtype;
  model["device"] = facts.report.device;
  gauge("octet:model_info", "What is served.", model).Set(1);
  iteration =
      &histogram("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", step_buckets());
}

void ServerMetrics::Series::add_request_series(const MetricsFacts& facts) {
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kAbort, FinishReason::kError}) {
    success[static_cast<size_t>(reason)] =
        &counter("vllm:request_success_total", "Count of successfully processed requests.",
                 with("finished_reason", finish_reason_name(reason)));
  }
  counter("vllm:request_success_total", "Count of successfully processed requests.",
          with("finished_reason", "repetition"));
  ttft = &histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.",
                    first_token_buckets());
  itl = &histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", token_buckets());
  tpot = &histogram("vllm:request_time_per_output_token_seconds",
                    "Histogram of time_per_output_token_seconds per request.", token_buckets());
  old_tpot = &histogram("vllm:time_per_output_token_seconds", "Older name of vllm:inter_token_latency_seconds.",
                        token_buckets());
  e2e =
      &histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", request_buckets());
  queue = &histogram("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
                     request_buckets());
  inference = &histogram("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.",
                         request_buckets());
  prefill = &histogram("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
                       request_buckets());
  decode = &histogram("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
                      request_buckets());
  const Buckets tokens = decades(facts.max_model_len);
  of_prompt = &histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", tokens);
  of_output = &histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", tokens);
  max_output = &histogram("vllm:request_max_num_generation_tokens",
                          "Histogram of maximum number of requested generation tokens.", tokens);
  params_max = &histogram("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens);
  params_n = &histogram("vllm:request_params_n", "Histogram of the n request parameter.", {1, 2, 5, 10, 20});
}

void ServerMetrics::add_model(const MetricsFacts& facts) {
  Series& s = *series_;
  s.labels = {{"model_name", facts.model_name}, {"engine", "0"}};
  s.add_engine_series(facts);
  s.add_request_series(facts);
  s.has_model = true;
}

void ServerMetrics::request_started(int64_t, const SamplingParams& params) {
  series_->params_n->Observe(params.n);
  if (params.max_tokens) series_->params_max->Observe(*params.max_tokens);
}

void ServerMetrics::first_token(double seconds_since_arrival) { series_->ttft->Observe(seconds_since_arrival); }

void ServerMetrics::next_token(double seconds_since_last) {
  series_->itl->Observe(seconds_since_last);
  series_->old_tpot->Observe(seconds_since_last);
}

void ServerMetrics::request_finished(const RequestOutput& output, double seconds_since_arrival) {
  Series& s = *series_;
  int64_t most = 0;
  for (const CompletionOutput& sequence : output.outputs) {
    if (Counter* counter = s.success[static_cast<size_t>(sequence.finish_reason)]) counter->Increment();
    const auto count = static_cast<int64_t>(sequence.token_ids.size());
    s.of_output->Observe(static_cast<double>(count));
    most = std::max(most, count);
  }
  s.max_output->Observe(static_cast<double>(most));
  s.of_prompt->Observe(static_cast<double>(output.prompt_token_ids.size()));
  s.e2e->Observe(seconds_since_arrival);
  const RequestTimes& times = output.times;
  if (times.first_scheduled_us == 0) return;  // it never ran
  s.queue->Observe(seconds_between(times.arrival_us, times.first_scheduled_us));
  if (times.first_token_us == 0) return;
  s.inference->Observe(seconds_between(times.first_scheduled_us, times.last_token_us));
  s.prefill->Observe(seconds_between(times.first_scheduled_us, times.first_token_us));
  s.decode->Observe(seconds_between(times.first_token_us, times.last_token_us));
  if (most > 1) {
    s.tpot->Observe(seconds_between(times.first_token_us, times.last_token_us) / static_cast<double>(most - 1));
  }
}

void ServerMetrics::step(int64_t num_tokens) {
  if (series_->iteration) series_->iteration->Observe(static_cast<double>(num_tokens));
}

void ServerMetrics::http_done(const std::string& handler, const HttpRequest& request, const HttpOutcome& outcome) {
  Series& s = *series_;
  const Labels labels = {{"handler", handler},
                         {"method", request.method.size() > 16 ? "other" : request.method},
                         {"status", fmt::format("{}xx", outcome.status / 100)}};
  s.http_requests->Add(labels).Increment();
  s.http_seconds->Add({{"handler", handler}}, request_buckets())
      .Observe(static_cast<double>(outcome.duration.count()) / 1e6);
}

std::string ServerMetrics::text(const EngineMetrics* engine, const ServerCounts& counts) {
  Series& s = *series_;
  s.memory->Set(status_bytes("VmRSS:"));
  s.files->Set(num_open_files());
  set_to(*s.rejected, counts.rejected);
  if (counts.traces_exported) {
    set_to(s.counter("octet:trace_spans_exported_total", "Spans that the collector took.", {}),
           *counts.traces_exported);
    set_to(s.counter("octet:trace_spans_dropped_total", "Spans that were lost: the collector was slow, or away.", {}),
           *counts.traces_dropped);
  }
  const double cpu = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  if (cpu > s.processor->Value()) s.processor->Increment(cpu - s.processor->Value());
  if (engine && s.has_model) {
    s.running->Set(static_cast<double>(engine->num_running));
    s.waiting->Set(static_cast<double>(engine->num_waiting));
    s.waiting_for_room->Set(static_cast<double>(engine->num_waiting));
    for (Gauge* gauge : {s.usage, s.old_usage}) gauge->Set(engine->kv_usage);
    set_to(*s.preemptions, engine->num_preemptions);
    for (Counter* counter : {s.queries, s.old_queries, s.prompt_tokens}) set_to(*counter, engine->prompt_tokens);
    for (Counter* counter : {s.hits, s.old_hits, s.cached_tokens}) set_to(*counter, engine->cached_prompt_tokens);
    set_to(*s.generation_tokens, engine->generated_tokens);
  }
  return prometheus::TextSerializer().Serialize(s.registry.Collect());
}

}  // namespace octet
