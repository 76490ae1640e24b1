// ApiServer: the OpenAI-compatible server, in vLLM's dialect: which routes there are, who may use them, and what
// happens to a request from its head to the engine.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "octet/server/access.h"
#include "octet/server/admission.h"
#include "octet/server/generation.h"
#include "octet/server/http_server.h"
#include "octet/server/lifecycle.h"
#include "octet/server/route_table.h"
#include "octet/server/served_model.h"
#include "octet/server/server_metrics.h"
#include "octet/server/worker_pool.h"

namespace octet {

struct ApiOptions {
  std::vector<std::string> api_keys;
  std::vector<std::string> admin_api_keys;  // without one there are no routes for those who run the server
  std::vector<std::string> allowed_origins;
  std::string root_path;                 // a prefix that a proxy leaves on paths
  std::vector<std::string> quiet_paths;  // without a line in the access log
  bool access_log = true;
  bool page = true;                          // at "/"
  int64_t max_sequences = 1280;              // running and waiting together
  int64_t max_waiting_tokens = 0;            // of prompts without a first token; 0: 4 times what the KV cache holds
  std::chrono::seconds max_queue_time{600};  // then a request that no step has begun on is given up; 0: never
  std::string traces_endpoint;               // of an OpenTelemetry collector; empty: no traces
  int num_workers = 2;
  std::chrono::seconds stall_timeout{60};
};

class ApiServer final : public HttpApp {
 public:
  explicit ApiServer(const ApiOptions& options);
  ~ApiServer() override;

  Lifecycle& lifecycle() { return lifecycle_; }
  ServerMetrics& metrics() { return metrics_; }
  const RouteTable& route_table() const { return route_table_; }
  // Once, before the lifecycle's kReady. Kept until this ends.
  void set_model(std::unique_ptr<const ServedModel> model);
  const ServedModel* model() const { return model_.load(); }  // nullptr while it loads
  bool faulty() const;                                        // the engine has stopped by itself
  // Requests being answered.
  int64_t num_requests() const { return admission_.num_requests(); }
  // Ends all of them; their clients get what there is.
  void abort_all();
  // To be called about once a second.
  void tick();

  std::optional<HttpResponse> check_head(const HttpRequest& request) override;
  void serve(std::shared_ptr<HttpRequest> request, std::shared_ptr<HttpReply> reply) override;
  HttpResponse refuse(int status, const std::string& text) override;
  void done(const HttpRequest& request, const HttpOutcome& outcome) override;

 private:
  std::vector<Route> routes();
  RouteTable::Match match(const HttpRequest& request) const;
  std::optional<ApiError> check_state(const Route& route) const;
  HttpResponse decorated(HttpResponse response, const HttpRequest& request, const std::string& request_id) const;
  std::optional<ApiError> check_access(const Route& route, const HttpRequest& request) const;
  std::optional<EngineMetrics> engine_metrics() const;
  std::vector<std::shared_ptr<Generation>> living();
  ServerCounts server_counts() const;

  // The routes, api_routes.cc.
  void send_json(Call& call, int status, const Json& body);
  void get_health(Call& call);
  void get_live(Call& call);
  void get_version(Call& call);
  void get_models(Call& call);
  void get_model(Call& call);
  void get_load(Call& call);
  void get_metrics(Call& call);
  void get_openapi(Call& call);
  void get_page(Call& call);
  void get_status(Call& call);
  void get_tokenizer_info(Call& call);
  void post_completions(Call& call);
  void post_chat(Call& call);
  void post_messages(Call& call);
  void post_count_tokens(Call& call);
  void post_responses(Call& call);
  void post_embeddings(Call& call);
  void post_completions_render(Call& call);
  void post_chat_render(Call& call);
  void post_tokenize(Call& call);
  void post_detokenize(Call& call);
  void get_server_info(Call& call);  // these four: admin_routes.cc
  void get_health_generate(Call& call);
  void post_reset_prefix_cache(Call& call);
  void post_abort_requests(Call& call);
  void answer_chat(Call& call, ChatRequest request, std::unique_ptr<AnswerFormat> format);
  Admission::Ticket enter(int64_t num_sequences);
  void generate(Call& call, const ServedModel& model, GenerationJob job);

  const ApiOptions options_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  const ApiKeys keys_, admin_keys_;
  const CorsPolicy cors_;
  Lifecycle lifecycle_;
  Admission admission_;
  ServerMetrics metrics_;
  std::unique_ptr<TraceExporter> tracer_;  // nullptr without an endpoint
  RouteTable route_table_;

  std::mutex mutex_;  // guards generations_
  std::vector<std::weak_ptr<Generation>> generations_;
  std::unique_ptr<const ServedModel> owned_model_;  // its threads use what is above until it is gone
  std::atomic<const ServedModel*> model_{nullptr};

  WorkerPool workers_;  // last: its threads use all the rest
};

}  // namespace octet
