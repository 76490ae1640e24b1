// Load: streamed requests sent to a server at given times, all by one thread, and when the pieces of their answers
// came.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/json.h"

namespace octet {

struct LoadTarget {
  std::string url;                   // of the route
  std::vector<std::string> headers;  // "Name: value"
  bool verify_certificate = true;
};

struct LoadRequest {
  std::string body;  // JSON with stream=true
  double at = 0;     // seconds after the start
};

// Times in seconds.
struct LoadResult {
  bool success = false;
  long status = 0;  // HTTP's; 0: nothing came
  std::string error;
  double due = 0, start = 0;  // after the start: when it should have been sent, when it was
  double ttft = 0;            // from sending to the first event with choices
  double latency = 0;         // from sending to the last one
  std::vector<double> itls;   // between events with choices
  std::string text;
  std::optional<int64_t> num_output_tokens;  // as the server counts them
};

struct LoadOptions {
  int64_t max_concurrency = 0;  // 0: any number
  std::function<void(int64_t num_done)> on_progress;
};

// In the order of `requests`, whose times must not decrease. A request that fails is a result. Throws Error when curl
// does not work at all.
std::vector<LoadResult> run_load(const LoadTarget& target, const std::vector<LoadRequest>& requests,
                                 const LoadOptions& options);

// The answer to a GET, parsed. Throws Error{kIo} that says what went wrong.
Json get_json(const LoadTarget& target);

}  // namespace octet
