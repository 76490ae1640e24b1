// octet serve: the OpenAI-compatible server.
#include <algorithm>

#include "octet/base/log.h"
#include "octet/server/server.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

struct ServeCommand {
  ModelFlags model;
  ServeOptions options;
  std::string port = "8000", api_key_file, log_format = "text", log_level = "info", max_body = "32M";
  std::vector<std::string> api_keys, admin_api_keys;
  std::string origins, pooler_config;
  int client_certificates = 0;
  int64_t max_queued = 0, max_queue_time = 600, shutdown_timeout = 30, stall_timeout = 60, stats_interval = 10,
          idle_timeout = 75;
  bool no_stats = false;

  void add_to(CLI::App& app);
  void run();
};

// vLLM takes a JSON list; names parted by commas do as well.
std::vector<std::string> as_list(const std::string& text, const char* flag) {
  std::vector<std::string> list;
  if (text.empty()) return list;
  if (text.front() == '[') {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_array()) fail(ErrorCode::kUsage, "{}: not a JSON list: {}", flag, text);
    for (const Json& item : json) {
      if (!item.is_string()) fail(ErrorCode::kUsage, "{}: not a list of strings: {}", flag, text);
      list.push_back(item.get<std::string>());
    }
    return list;
  }
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) list.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

// A Kubernetes service named like a program puts "tcp://..." into <NAME>_PORT: numbers only.
uint16_t parse_port(const std::string& text) {
  constexpr int64_t kMaxPort = 65535;
  const int64_t port = parse_count(text);
  if (port > kMaxPort) fail(ErrorCode::kUsage, "--port: must be at most {}, was {}", kMaxPort, text);
  return static_cast<uint16_t>(port);
}

void ServeCommand::add_to(CLI::App& app) {
  const auto server = [&](CLI::Option* option) { option->group("Server"); };
  server(app.add_option("--host", options.http.host, "address to listen on; 0.0.0.0 or :: for all")
             ->capture_default_str());
  server(app.add_option("--port", port, "port to listen on; 0: any free one")->capture_default_str());
  server(app.add_option("--uds", options.http.unix_socket, "a Unix domain socket instead of host and port"));
  server(app.add_option("--root-path", options.api.root_path, "prefix of paths that a proxy leaves there"));
  server(app.add_option("--served-model-name", options.model_names, "names of the model for clients (default: MODEL)"));
  server(app.add_option("--api-key", api_keys, "key that clients must send; may be given several times")
             ->envname("OCTET_API_KEY")
             ->delimiter(','));
  server(app.add_option("--admin-api-key", admin_api_keys,
                        "key for /abort_requests and /reset_prefix_cache, which are not there without")
             ->envname("OCTET_ADMIN_API_KEY")
             ->delimiter(','));
  server(app.add_option("--api-key-file", api_key_file, "keys, one a line, # for comments"));
  server(app.add_flag("--ui,!--no-ui", options.api.page, "a page at / to chat and to watch the server (on)"));
  server(app.add_option("--allowed-origins", origins,
                        "origins of web pages that may read answers (CORS): a,b or a JSON list; * for all"));
  server(app.add_option("--shutdown-timeout", shutdown_timeout, "seconds for running requests after SIGTERM")
             ->capture_default_str());
  server(app.add_option("--stall-timeout", stall_timeout, "seconds without a step after which /health says stalled")
             ->capture_default_str());
  server(
      app.add_option("--ssl-certfile", options.http.tls.certificate_file, "PEM certificates: HTTPS instead of HTTP"));
  server(app.add_option("--ssl-keyfile", options.http.tls.key_file, "their PEM key (default: in --ssl-certfile)"));
  server(app.add_option("--ssl-ca-certs", options.http.tls.ca_file, "PEM certificates of who vouches for clients"));
  server(
      app.add_option("--ssl-cert-reqs", client_certificates, "certificates of clients: 0 none, 1 checked, 2 required")
          ->check(CLI::Range(0, 2))
          ->capture_default_str());
  server(app.add_option("--ssl-ciphers", options.http.tls.ciphers, "of TLS 1.2, in OpenSSL's notation"));
  server(app.add_flag("--enable-ssl-refresh", options.http.tls.refresh, "read the files again when they change"));
  server(app.add_option(
      "--pooler-config", pooler_config,
      "how /v1/embeddings makes vectors: {\"pooling_type\": \"MEAN\" or \"LAST\", \"normalize\": true}"));
  const auto limits = [&](CLI::Option* option) { option->capture_default_str()->group("Limits"); };
  limits(app.add_option("--max-num-queued-reqs", max_queued, "sequences that may wait; 0: 4 * max-num-seqs"));
  limits(app.add_option("--max-num-queued-tokens", options.api.max_waiting_tokens,
                        "prompt tokens that may wait for their first token; 0: 4 * what the KV cache holds")
             ->check(CLI::NonNegativeNumber));
  limits(app.add_option("--max-queue-time", max_queue_time, "seconds that a request may wait for its turn; 0: any")
             ->check(CLI::NonNegativeNumber));
  limits(app.add_option("--max-logprobs", options.limits.max_logprobs, "most alternatives of log-probabilities"));
  limits(app.add_option("--max-body-bytes", max_body, "largest request body"));
  limits(app.add_option("--max-connections", options.http.limits.max_connections, "connections at once"));
  limits(app.add_option("--timeout-keep-alive", idle_timeout, "seconds that an idle connection is kept"));
  const auto logs = [&](CLI::Option* option) { option->group("Logs"); };
  logs(app.add_option("--log-format", log_format, "text or json")
           ->check(CLI::IsMember({"text", "json"}))
           ->capture_default_str());
  logs(app.add_option("--log-level", log_level, "debug, info, warning, error")
           ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
           ->capture_default_str());
  logs(app.add_flag("--access-log,!--no-access-log", options.api.access_log, "a line for each request (on)"));
  logs(app.add_option("--disable-access-log-for-endpoints", options.api.quiet_paths, "paths without such a line")
           ->delimiter(','));
  logs(app.add_option("--otlp-traces-endpoint", options.api.traces_endpoint,
                      "OpenTelemetry collector for a span a request: http://HOST:4318 (OTLP/HTTP)"));
  logs(app.add_option("--log-stats-interval", stats_interval, "seconds between lines with throughputs")
           ->capture_default_str());
  logs(app.add_flag("--disable-log-stats", no_stats, "none of them"));
}

void report_ready(const ServedModel& model, const std::string& url, bool open_to_all) {
  print_report(model.llm().engine().report());
  const SamplingParams& defaults = model.facts().defaults;
  log_info("sampling defaults: temperature {}, top_p {}, top_k {}, min_p {}, repetition_penalty {}",
           defaults.temperature, defaults.top_p, defaults.top_k, defaults.min_p, defaults.repetition_penalty);
  log_info("chat template: {}", model.llm().chat_template_source() ? "the model's, or the one given" : "none");
  log_info("serving {} at {}/v1{}", model.facts().names.front(), url, open_to_all ? " without an API key" : "");
}

void ServeCommand::run() {
  set_log_style(log_format == "json" ? LogStyle::kJson : LogStyle::kTimed);
  set_log_level(log_level == "debug"     ? LogLevel::kDebug
                : log_level == "warning" ? LogLevel::kWarning
                : log_level == "error"   ? LogLevel::kError
                                         : LogLevel::kInfo);
  options.llm = model.options();
  options.llm.pooler_config = pooler_config;
  const EngineOptions& engine = options.llm.engine;
  options.http.port = parse_port(port);
  options.http.tls.clients = static_cast<TlsOptions::ClientCertificates>(client_certificates);
  if (options.http.tls.certificate_file.empty() && !options.http.tls.key_file.empty()) {
    fail(ErrorCode::kUsage, "--ssl-keyfile: needs --ssl-certfile");
  }
  options.http.limits.max_body_bytes = parse_count(max_body);
  options.http.limits.idle_timeout = std::chrono::seconds(idle_timeout);
  options.api.api_keys = api_keys;
  options.api.admin_api_keys = admin_api_keys;
  if (!api_key_file.empty()) {
    for (std::string& key : read_key_file(api_key_file)) options.api.api_keys.push_back(std::move(key));
  }
  options.api.allowed_origins = as_list(origins, "--allowed-origins");
  options.api.max_sequences = engine.max_num_seqs + (max_queued > 0 ? max_queued : int64_t{4} * engine.max_num_seqs);
  options.api.max_queue_time = std::chrono::seconds(max_queue_time);
  options.api.stall_timeout = std::chrono::seconds(stall_timeout);
  options.shutdown_timeout = std::chrono::seconds(shutdown_timeout);
  options.stats_interval = std::chrono::seconds(no_stats ? 0 : stats_interval);
  const bool open_to_all = options.api.api_keys.empty();
  const bool local = options.http.host == "127.0.0.1" || options.http.host == "localhost" ||
                     options.http.host == "::1" || !options.http.unix_socket.empty();
  if (open_to_all && !local) log_warning("{} is reachable from elsewhere, and no --api-key is set", options.http.host);
  options.on_ready = [open_to_all](const ServedModel& served, const std::string& url) {
    report_ready(served, url, open_to_all);
  };
  const int status = serve(options);
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_serve(CLI::App& program) {
  auto command = std::make_shared<ServeCommand>();
  CLI::App* app = program.add_subcommand("serve", "Serve a model over HTTP: the OpenAI API as vLLM speaks it");
  command->model.add_to(*app);
  command->add_to(*app);
  app->callback([command] { command->run(); });
}

}  // namespace octet
