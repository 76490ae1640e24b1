// The figures of `octet bench serve`: vLLM's definitions, captions and JSON keys.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "octet/base/json.h"
#include "tools/bench_load.h"

namespace octet {

// One answered or failed request. num_output_tokens of its result is set.
struct BenchSample {
  int64_t num_prompt_tokens = 0;
  LoadResult result;
};

struct ReportOptions {
  double duration = 0;      // seconds from the first request's sending to the last one's end
  double request_rate = 0;  // infinite: all at once
  int64_t max_concurrency = 0;
  std::vector<std::string> metrics;       // of ttft, tpot, itl, e2el
  std::vector<double> percentiles;        // of each of them
  std::map<std::string, double> goodput;  // "ttft" -> milliseconds; empty: not asked for
  bool detailed = false;                  // also every single figure, in the JSON
};

struct BenchReport {
  std::string text;  // for people
  Json json;
};
BenchReport bench_report(const std::vector<BenchSample>& samples, const ReportOptions& options);

}  // namespace octet
