// serve(): the server from its start to its end: port open at once, the model loaded, requests answered, drained on
// SIGTERM.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "octet/server/api_server.h"

namespace octet {

struct ServeOptions {
  HttpServerOptions http;
  ApiOptions api;
  LlmOptions llm;
  RequestLimits limits;
  std::vector<std::string> model_names;
  std::chrono::seconds shutdown_timeout{30};  // for requests that are being answered when a signal comes
  std::chrono::seconds stats_interval{10};    // of the line with throughputs; 0: none
  std::function<void(const ServedModel& model, const std::string& url)> on_ready;
};

// Answers until SIGTERM or SIGINT and returns the exit status: 0, or 1 when the engine failed. A second signal ends it
// at once. Throws Error when it cannot listen or the model cannot be loaded. Takes these signals for the whole process.
int serve(const ServeOptions& options);

}  // namespace octet
