// ServerMetrics: what Prometheus reads, under vLLM's names, labels and buckets, so that its dashboards and routers work
// unchanged. Every series is there from the start. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "octet/api/output.h"
#include "octet/engine/engine.h"
#include "octet/server/http_server.h"

namespace octet {

struct MetricsFacts {
  std::string model_name;
  int64_t max_model_len = 0;
  int64_t block_size = 0;
  bool enable_prefix_caching = true;
  double gpu_memory_utilization = 0;
  EngineReport report;
};

// What others than ServerMetrics count.
struct ServerCounts {
  int64_t rejected = 0;
  std::optional<int64_t> traces_exported, traces_dropped;  // spans; nothing without a collector
};

class ServerMetrics {
 public:
  ServerMetrics();
  ~ServerMetrics();

  // When the model is ready: makes its series.
  void add_model(const MetricsFacts& facts);

  void request_started(int64_t num_prompt_tokens, const SamplingParams& params);
  void first_token(double seconds_since_arrival);
  void next_token(double seconds_since_last);
  // At the end of one prompt's request, with all its sequences.
  void request_finished(const RequestOutput& output, double seconds_since_arrival);
  void step(int64_t num_tokens);
  void http_done(const std::string& handler, const HttpRequest& request, const HttpOutcome& outcome);

  // The text of /metrics. `engine`: nothing before the model is ready.
  std::string text(const EngineMetrics* engine, const ServerCounts& counts);

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace octet
