#include "octet/server/api_server.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>

#include "octet/base/build_facts.h"
#include "octet/base/log.h"

namespace octet {
namespace {

constexpr size_t kMaxWaitingWork = 4096;
constexpr size_t kMaxRequestIdBytes = 128;

std::string random_id() {
  unsigned char bytes[16] = {};
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) fail(ErrorCode::kIo, "getrandom failed");
  std::string id;
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

// The client's X-Request-Id if it may be shown again, else a new one.
std::string request_id_of(const HttpRequest& request) {
  const std::string_view given = request.header("x-request-id");
  const bool usable = !given.empty() && given.size() <= kMaxRequestIdBytes &&
                      std::all_of(given.begin(), given.end(), [](unsigned char c) { return c > ' ' && c < 0x7F; });
  return usable ? std::string(given) : random_id();
}

// Adds the headers that every answer has.
class DecoratedReply final : public HttpReply {
 public:
  DecoratedReply(std::shared_ptr<HttpReply> inner, HttpHeaders headers)
      : inner_(std::move(inner)), headers_(std::move(headers)) {}
  void send(HttpResponse response) override { inner_->send(with_headers(std::move(response))); }
  void start(HttpResponse response) override { inner_->start(with_headers(std::move(response))); }
  void write(std::string_view bytes) override { inner_->write(bytes); }
  void finish() override { inner_->finish(); }
  bool writable() override { return inner_->writable(); }
  void watch(HttpReplyEvents events) override { inner_->watch(std::move(events)); }

 private:
  HttpResponse with_headers(HttpResponse response) const {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    return response;
  }
  const std::shared_ptr<HttpReply> inner_;
  const HttpHeaders headers_;
};

ApiError not_found(const HttpRequest& request) {
  return {404, "not_found", fmt::format("There is no {}.", shortened(request.path))};
}

std::unique_ptr<TraceExporter> make_tracer(const std::string& endpoint) {
  if (endpoint.empty()) return nullptr;
  const char* name = std::getenv("OTEL_SERVICE_NAME");  // OpenTelemetry's own
  return std::make_unique<TraceExporter>(endpoint, name && *name ? name : "octet", build::kVersion);
}

}  // namespace

ApiServer::ApiServer(const ApiOptions& options)
    : options_(options),
      keys_(options.api_keys),
      admin_keys_(options.admin_api_keys),
      cors_(options.allowed_origins),
      lifecycle_(options.stall_timeout),
      admission_(options.max_sequences),
      tracer_(make_tracer(options.traces_endpoint)),
      route_table_(routes()),
      workers_(options.num_workers, kMaxWaitingWork) {}

ApiServer::~ApiServer() = default;

void ApiServer::set_model(std::unique_ptr<const ServedModel> model) {
  owned_model_ = std::move(model);
  constexpr int64_t kCaches = 4;
  const int64_t held = owned_model_->llm().engine().report().kv_cache_tokens;
  admission_.limit_waiting_tokens(options_.max_waiting_tokens > 0 ? options_.max_waiting_tokens : kCaches * held);
  model_.store(owned_model_.get());
}

std::optional<EngineMetrics> ApiServer::engine_metrics() const {
  const ServedModel* served = model();
  if (!served) return std::nullopt;
  return served->llm().engine().metrics();
}

bool ApiServer::faulty() const {
  const ServedModel* served = model();
  return served && served->llm().engine().fault().has_value();
}

std::vector<std::shared_ptr<Generation>> ApiServer::living() {
  std::vector<std::shared_ptr<Generation>> living;
  const std::lock_guard lock(mutex_);
  for (const auto& weak : generations_) {
    if (auto generation = weak.lock()) living.push_back(std::move(generation));
  }
  return living;
}

void ApiServer::abort_all() {
  for (const auto& generation : living()) generation->abort();
}

void ApiServer::tick() {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(generations_, [](const auto& weak) { return weak.expired(); });
  }
  const auto now = std::chrono::steady_clock::now();
  for (const auto& generation : living()) {
    generation->keep_alive(now);
    if (options_.max_queue_time.count() > 0) generation->end_waiting(now - options_.max_queue_time);
  }
}

RouteTable::Match ApiServer::match(const HttpRequest& request) const {
  std::string_view path = request.path;
  if (!options_.root_path.empty() && path.starts_with(options_.root_path)) {
    path.remove_prefix(options_.root_path.size());
    if (path.empty()) path = "/";
  }
  return route_table_.match(request.method, path);
}

std::optional<ApiError> ApiServer::check_access(const Route& route, const HttpRequest& request) const {
  const bool is_admin = admin_keys_.required() && admin_keys_.allow(request);
  if (route.access == Route::Access::kOpen || is_admin) return std::nullopt;
  const bool may_ask = keys_.allow(request);
  if (route.access == Route::Access::kKey && may_ask) return std::nullopt;
  if (route.access == Route::Access::kAdmin && keys_.required() && may_ask) {
    return ApiError(403, "permission_error", "This route needs the server's admin key.");
  }
  return ApiError(401, "invalid_api_key", "A valid API key is needed: Authorization: Bearer KEY.");
}

std::optional<ApiError> ApiServer::check_state(const Route& route) const {
  if (route.needs == Route::Needs::kNothing) return std::nullopt;
  switch (lifecycle_.state()) {
    case Lifecycle::State::kLoading: {
      ApiError error(503, "unavailable", "Loading model");
      error.extra = {{"progress", lifecycle_.progress()}};
      return error;
    }
    case Lifecycle::State::kDraining:
    case Lifecycle::State::kStopped:
      return ApiError(503, "server_shutting_down", "The server is shutting down.");
    case Lifecycle::State::kReady:
      break;
  }
  if (route.needs != Route::Needs::kPlace) return std::nullopt;
  if (const auto why = admission_.full()) return ApiError(503, "queue_full", *why);
  return std::nullopt;
}

HttpResponse ApiServer::decorated(HttpResponse response, const HttpRequest& request,
                                  const std::string& request_id) const {
  response.headers.emplace_back("x-request-id", request_id);
  for (auto& header : cors_.headers(request)) response.headers.push_back(std::move(header));
  return response;
}

std::optional<HttpResponse> ApiServer::check_head(const HttpRequest& request) {
  RouteTable::Match found = match(request);
  if (found.route && found.route->access == Route::Access::kAdmin && !admin_keys_.required()) found = {};
  if (auto response = cors_.preflight(request, found.allowed_methods)) return response;
  const auto refused = [&](const ApiError& error) {
    const ErrorWording wording = found.route ? found.route->errors : ErrorWording::kOpenAi;
    return decorated(error_response(error, wording), request, request_id_of(request));
  };
  if (!found.route && found.allowed_methods.empty()) return refused(not_found(request));
  if (!found.route && request.method == "OPTIONS") {
    return HttpResponse{.status = 204, .headers = {{"Allow", found.allowed_methods}}};
  }
  if (!found.route) {
    ApiError error(405, "method_not_allowed",
                   fmt::format("{} takes {}.", shortened(request.path), found.allowed_methods));
    error.headers.emplace_back("Allow", found.allowed_methods);
    return refused(error);
  }
  if (const auto error = check_access(*found.route, request)) return refused(*error);
  if (const auto error = check_state(*found.route)) {
    if (error->code == "queue_full") admission_.count_rejected();
    HttpResponse response = refused(*error);
    response.close = error->code == "server_shutting_down";
    return response;
  }
  if (request.header("content-type").starts_with("multipart/")) {
    return refused({415, "unsupported_media_type", "The body must be JSON, not a form."});
  }
  return std::nullopt;
}

void ApiServer::serve(std::shared_ptr<HttpRequest> request, std::shared_ptr<HttpReply> reply) {
  const RouteTable::Match found = match(*request);
  Call call{.request = request, .reply = nullptr, .request_id = request_id_of(*request), .tail = found.tail};
  HttpHeaders headers = {{"x-request-id", call.request_id}};
  if (found.route->errors == ErrorWording::kAnthropic) headers.emplace_back("request-id", call.request_id);
  for (auto& header : cors_.headers(*request)) headers.push_back(std::move(header));
  call.reply = std::make_shared<DecoratedReply>(std::move(reply), std::move(headers));
  auto run = [route = found.route, call]() mutable {
    try {
      route->serve(call);
    } catch (const std::exception& error) {
      call.reply->send(error_response(api_error_of(error), route->errors));
    }
  };
  if (found.route->where == Route::Where::kInline) return run();
  if (!workers_.try_run(run)) {
    admission_.count_rejected();
    call.reply->send(error_response({503, "queue_full", "Too many requests wait to be read."}, found.route->errors));
  }
}

HttpResponse ApiServer::refuse(int status, const std::string& text) {
  const char* code = status == 413   ? "request_too_large"
                     : status == 431 ? "headers_too_large"
                     : status == 408 ? "request_timeout"
                     : status == 503 ? "server_overloaded"
                                     : "bad_request";
  return error_response({status, code, text});
}

void ApiServer::done(const HttpRequest& request, const HttpOutcome& outcome) {
  const RouteTable::Match found = match(request);
  metrics_.http_done(found.route ? found.route->path : "other", request, outcome);
  if (!options_.access_log) return;
  const auto& quiet = options_.quiet_paths;
  if (std::find(quiet.begin(), quiet.end(), request.path) != quiet.end()) return;
  const std::string status = std::to_string(outcome.status);
  const std::string took = fmt::format("{:.1f}", static_cast<double>(outcome.duration.count()) / 1e3);
  const std::string bytes = std::to_string(outcome.response_bytes);
  const std::string line = fmt::format("{} {}", shortened(request.method, 16), shortened(request.path));
  log_line(LogLevel::kInfo, line, {{"status", status}, {"ms", took}, {"bytes", bytes}, {"peer", request.peer}});
}

}  // namespace octet
