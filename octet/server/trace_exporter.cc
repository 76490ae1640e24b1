#include "octet/server/trace_exporter.h"

#include <curl/curl.h>
#include <pthread.h>

#include <limits>
#include <memory>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/server/api_error.h"

namespace octet {
namespace {

constexpr size_t kMaxWaiting = 4096, kMaxBatch = 512;
constexpr long kTimeoutMs = 10'000;
constexpr std::chrono::seconds kPatience{2};

}  // namespace

std::string TraceExporter::url_of(const std::string& endpoint) {
  const size_t scheme = endpoint.starts_with("http://") ? 7 : endpoint.starts_with("https://") ? 8 : 0;
  if (scheme == 0 || endpoint.size() == scheme || endpoint[scheme] == '/') {
    fail(ErrorCode::kUsage,
         "--otlp-traces-endpoint: expected http://HOST:PORT or https://... (OTLP/HTTP; not gRPC), found {}", endpoint);
  }
  const size_t path = endpoint.find('/', scheme);
  if (path == endpoint.npos) return endpoint + "/v1/traces";
  return path + 1 == endpoint.size() ? endpoint + "v1/traces" : endpoint;
}

TraceExporter::TraceExporter(const std::string& endpoint, std::string service_name, std::string version)
    : url_(url_of(endpoint)),
      service_name_(std::move(service_name)),
      version_(std::move(version)),
      deadline_(std::numeric_limits<Clock::rep>::max()),
      queue_(kMaxWaiting) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  thread_ = std::thread([this] { run(); });
}

TraceExporter::~TraceExporter() {
  deadline_.store((Clock::now() + kPatience).time_since_epoch().count());
  queue_.close();
  thread_.join();
}

void TraceExporter::offer(TraceSpan span) {
  if (!queue_.try_push(std::move(span))) num_dropped_.fetch_add(1);
}

void TraceExporter::run() {
  pthread_setname_np(pthread_self(), "octet-traces");
  while (auto first = queue_.pop()) {
    std::vector<TraceSpan> batch;
    batch.push_back(*std::move(first));
    while (batch.size() < kMaxBatch) {
      auto next = queue_.try_pop();
      if (!next) break;
      batch.push_back(*std::move(next));
    }
    const std::string why =
        out_of_time() ? "the server ends" : post(dump_line(otlp_json(batch, service_name_, version_)));
    (why.empty() ? num_exported_ : num_dropped_).fetch_add(static_cast<int64_t>(batch.size()));
    if (!why.empty()) warn_once(fmt::format("traces are lost: {}: {}", url_, why));
  }
}

std::string TraceExporter::post(const std::string& body) {
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (!curl) return "curl_easy_init failed";
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(
      curl_slist_append(nullptr, "Content-Type: application/json"), curl_slist_free_all);
  const auto ignore = +[](char*, size_t size, size_t count, void*) -> size_t { return size * count; };
  const auto check = +[](void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) -> int {
    return static_cast<const TraceExporter*>(self)->out_of_time() ? 1 : 0;
  };
  curl_easy_setopt(curl.get(), CURLOPT_URL, url_.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, kTimeoutMs);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, ignore);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, check);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, this);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  const CURLcode result = curl_easy_perform(curl.get());
  if (result != CURLE_OK) return curl_easy_strerror(result);
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return status >= 200 && status < 300 ? "" : fmt::format("HTTP status {}", status);
}

}  // namespace octet
