#include "tools/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/statistics.h"

namespace octet {
namespace {

constexpr double kMillisecondsPerSecond = 1e3;

// Of the requests that succeeded, seconds; tpot 0 where there is one token only.
struct Series {
  std::vector<double> ttft, tpot, e2el, itl;
};

double tpot_of(const LoadResult& result) {
  const int64_t count = result.num_output_tokens.value_or(0);
  return count > 1 ? (result.latency - result.ttft) / static_cast<double>(count - 1) : 0.0;
}

Series series_of(const std::vector<BenchSample>& samples) {
  Series series;
  for (const auto& [prompt_tokens, result] : samples) {
    if (!result.success) continue;
    series.ttft.push_back(result.ttft);
    series.e2el.push_back(result.latency);
    if (result.num_output_tokens.value_or(0) > 1) series.tpot.push_back(tpot_of(result));
    series.itl.insert(series.itl.end(), result.itls.begin(), result.itls.end());
  }
  return series;
}

int64_t num_good(const std::vector<BenchSample>& samples, const std::map<std::string, double>& limits) {
  return std::count_if(samples.begin(), samples.end(), [&](const BenchSample& sample) {
    const LoadResult& result = sample.result;
    const std::map<std::string, double> taken = {
        {"ttft", result.ttft}, {"tpot", tpot_of(result)}, {"e2el", result.latency}};
    return result.success && std::all_of(limits.begin(), limits.end(), [&](const auto& limit) {
             return taken.at(limit.first) * kMillisecondsPerSecond <= limit.second;
           });
  });
}

// The most events in one second, seconds counted from the first request on.
int64_t peak_events(const std::vector<BenchSample>& samples) {
  double first = INFINITY;
  for (const BenchSample& sample : samples) {
    if (sample.result.success) first = std::min(first, sample.result.start);
  }
  std::map<int64_t, int64_t> by_second;
  int64_t peak = 0;
  const auto note = [&](double at) { peak = std::max(peak, ++by_second[static_cast<int64_t>(at - first)]); };
  for (const BenchSample& sample : samples) {
    if (!sample.result.success) continue;
    double at = sample.result.start + sample.result.ttft;
    note(at);
    for (const double itl : sample.result.itls) note(at += itl);
  }
  return peak;
}

int64_t peak_concurrency(const std::vector<BenchSample>& samples) {
  std::vector<std::pair<double, int>> changes;  // an end sorts before a start at the same time
  for (const BenchSample& sample : samples) {
    if (!sample.result.success) continue;
    changes.emplace_back(sample.result.start, 1);
    changes.emplace_back(sample.result.start + sample.result.latency, -1);
  }
  std::sort(changes.begin(), changes.end());
  int64_t now = 0, peak = 0;
  for (const auto& change : changes) peak = std::max(peak, now += change.second);
  return peak;
}

class Writer {
 public:
  explicit Writer(BenchReport& report) : report_(report) {}

  void head(const std::string& title) { report_.text += framed(title, '='); }
  void section(const std::string& title) { report_.text += framed(title, '-'); }
  void close() { report_.text += std::string(kWidth, '=') + "\n"; }
  void line(const std::string& name, int64_t value) { report_.text += fmt::format("{:<40} {:<10}\n", name, value); }
  void line(const std::string& name, double value) { report_.text += fmt::format("{:<40} {:<10.2f}\n", name, value); }

 private:
  static constexpr size_t kWidth = 50;
  static std::string framed(const std::string& title, char fill) {
    const size_t space = kWidth - std::min(kWidth, title.size());
    return std::string(space / 2, fill) + title + std::string(space - space / 2, fill) + "\n";
  }
  BenchReport& report_;
};

struct Metric {
  const char* key;
  const char* name;
  const char* title;
  std::vector<double> Series::*values;
};
constexpr Metric kMetrics[] = {{"ttft", "TTFT", "Time to First Token", &Series::ttft},
                               {"tpot", "TPOT", "Time per Output Token (excl. 1st token)", &Series::tpot},
                               {"itl", "ITL", "Inter-token Latency", &Series::itl},
                               {"e2el", "E2EL", "End-to-end Latency", &Series::e2el}};

void add_latencies(const Series& series, const ReportOptions& options, Writer& writer, Json& json) {
  for (const Metric& metric : kMetrics) {
    if (std::find(options.metrics.begin(), options.metrics.end(), metric.key) == options.metrics.end()) continue;
    const std::vector<double>& values = series.*metric.values;
    writer.section(metric.title);
    const auto add = [&](const std::string& key, const std::string& word, double seconds) {
      const double value = seconds * kMillisecondsPerSecond;
      json[fmt::format("{}_{}_ms", key, metric.key)] = value;
      if (!word.empty()) writer.line(fmt::format("{} {} (ms):", word, metric.name), value);
    };
    add("mean", "Mean", mean(values));
    add("median", "Median", median(values));
    add("std", "", standard_deviation(values));
    for (const double percent : options.percentiles) {
      const std::string number = fmt::format("{:g}", percent);
      add("p" + number, "P" + number, percentile(values, percent));
    }
  }
}

void add_details(const std::vector<BenchSample>& samples, Json& json) {
  for (const char* key : {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times",
                          "generated_texts", "errors"}) {
    json[key] = Json::array();
  }
  for (const auto& [prompt_tokens, result] : samples) {
    json["input_lens"].push_back(prompt_tokens);
    json["output_lens"].push_back(result.success ? result.num_output_tokens.value_or(0) : 0);
    json["ttfts"].push_back(result.ttft);
    json["itls"].push_back(result.itls);
    json["latencies"].push_back(result.latency);
    json["start_times"].push_back(result.start);
    json["queue_times"].push_back(result.start - result.due);
    json["generated_texts"].push_back(result.text);
    json["errors"].push_back(result.error);
  }
}

}  // namespace

BenchReport bench_report(const std::vector<BenchSample>& samples, const ReportOptions& options) {
  int64_t completed = 0, inputs = 0, outputs = 0;
  for (const auto& [prompt_tokens, result] : samples) {
    if (!result.success) continue;
    ++completed;
    inputs += prompt_tokens;
    outputs += result.num_output_tokens.value_or(0);
  }
  const auto failed = static_cast<int64_t>(samples.size()) - completed;
  const auto rate = [&](int64_t count) { return static_cast<double>(count) / options.duration; };
  const int64_t most_events = peak_events(samples), most_requests = peak_concurrency(samples);
  BenchReport report;
  report.json = {{"duration", options.duration},
                 {"completed", completed},
                 {"failed", failed},
                 {"total_input_tokens", inputs},
                 {"total_output_tokens", outputs},
                 {"request_throughput", rate(completed)},
                 {"request_goodput", nullptr},
                 {"output_throughput", rate(outputs)},
                 {"total_token_throughput", rate(inputs + outputs)},
                 {"max_output_tokens_per_s", static_cast<double>(most_events)},
                 {"max_concurrent_requests", most_requests}};
  Writer writer(report);
  writer.head(" Serving Benchmark Result ");
  writer.line("Successful requests:", completed);
  writer.line("Failed requests:", failed);
  if (options.max_concurrency > 0) writer.line("Maximum request concurrency:", options.max_concurrency);
  if (std::isfinite(options.request_rate)) writer.line("Request rate configured (RPS):", options.request_rate);
  writer.line("Benchmark duration (s):", options.duration);
  writer.line("Total input tokens:", inputs);
  writer.line("Total generated tokens:", outputs);
  writer.line("Request throughput (req/s):", rate(completed));
  if (!options.goodput.empty()) {
    const double goodput = rate(num_good(samples, options.goodput));
    report.json["request_goodput"] = goodput;
    writer.line("Request goodput (req/s):", goodput);
  }
  writer.line("Output token throughput (tok/s):", rate(outputs));
  writer.line("Peak output token throughput (tok/s):", static_cast<double>(most_events));
  writer.line("Peak concurrent requests:", static_cast<double>(most_requests));
  writer.line("Total token throughput (tok/s):", rate(inputs + outputs));
  add_latencies(series_of(samples), options, writer, report.json);
  writer.close();
  if (options.detailed) add_details(samples, report.json);
  return report;
}

}  // namespace octet
