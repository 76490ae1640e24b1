// TraceExporter: sends spans to an OpenTelemetry collector by OTLP/HTTP, on a thread of its own. Nobody waits for it:
// when the collector is slow or away, spans are dropped and counted.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "octet/base/queue.h"
#include "octet/server/trace.h"

namespace octet {

class TraceExporter {
 public:
  // `endpoint`: "http://host:4318" (then /v1/traces is added) or a whole URL. Throws Error{kUsage} for another one.
  TraceExporter(const std::string& endpoint, std::string service_name, std::string version);
  // What waits has two seconds to be sent.
  ~TraceExporter();
  TraceExporter(const TraceExporter&) = delete;
  TraceExporter& operator=(const TraceExporter&) = delete;

  // Never waits. From any thread.
  void offer(TraceSpan span);
  int64_t num_exported() const { return num_exported_.load(); }
  int64_t num_dropped() const { return num_dropped_.load(); }

  // The URL that spans are posted to. Throws Error{kUsage}.
  static std::string url_of(const std::string& endpoint);

 private:
  using Clock = std::chrono::steady_clock;
  void run();
  // Empty when the collector took them, else why not.
  std::string post(const std::string& body);
  bool out_of_time() const { return Clock::now().time_since_epoch().count() > deadline_.load(); }

  const std::string url_, service_name_, version_;
  std::atomic<Clock::rep> deadline_;  // of what is under way, once this ends
  std::atomic<int64_t> num_exported_{0}, num_dropped_{0};
  Queue<TraceSpan> queue_;
  std::thread thread_;  // last: uses all of it
};

}  // namespace octet
