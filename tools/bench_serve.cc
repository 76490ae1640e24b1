// octet bench serve: measures a server that speaks OpenAI's API, with the flags, definitions, captions and JSON of
// `vllm bench serve`.
#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "octet/base/build_facts.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/log.h"
#include "octet/checkpoint/hub_cache.h"
#include "tools/bench_dataset.h"
#include "tools/bench_load.h"
#include "tools/bench_report.h"
#include "tools/commands.h"
#include "tools/terminal.h"

namespace octet {
namespace {

constexpr int64_t kMaxDatasetBytes = int64_t{4} << 30;

struct ServeBench {
  std::string backend = "openai", base_url, host = "127.0.0.1", endpoint, model, tokenizer, api_key;
  int port = 8000;
  std::vector<std::string> headers;
  bool insecure = false;

  std::string dataset_name = "random", dataset_path;
  int64_t num_prompts = 1000;
  RandomDataset random;
  std::optional<int64_t> output_len;
  uint64_t seed = 0;

  std::string request_rate = "inf";
  double burstiness = 1.0;
  int64_t max_concurrency = 0, num_warmups = 0, ready_check_timeout = 600;

  bool ignore_eos = false;
  std::optional<double> temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty;
  std::optional<int64_t> top_k, logprobs;
  std::string extra_body;

  std::string percentile_metrics = "ttft,tpot,itl", metric_percentiles = "99";
  std::vector<std::string> goodput, metadata;
  bool save_result = false, save_detailed = false;
  std::string result_dir, result_filename, label;

  void add_server_flags(CLI::App& app);
  void add_dataset_flags(CLI::App& app);
  void add_load_flags(CLI::App& app);
  void add_result_flags(CLI::App& app);
  void run();

  bool is_chat() const { return backend == "openai-chat"; }
  LoadTarget target(const std::string& path) const;
  void ask_for_model();
  std::vector<BenchPrompt> prompts(const Tokenizer& words) const;
  Json common_body() const;
  std::vector<LoadRequest> requests(const std::vector<BenchPrompt>& all) const;
  std::vector<double> arrivals() const;
  void wait_until_ready(const LoadRequest& request) const;
  void warm_up(const LoadRequest& request) const;
  ReportOptions report_options(double duration) const;
  Json head(const std::string& date) const;
  void save(const Json& result, const std::string& date) const;
};

std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

double number_of(const std::string& text, const char* flag) {
  size_t used = 0;
  double value = NAN;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || std::isnan(value))
    fail(ErrorCode::kUsage, "{}: not a number: {}", flag, text);
  return value;
}

double rate_of(const std::string& text) {
  const double rate = number_of(text, "--request-rate");
  if (rate <= 0) fail(ErrorCode::kUsage, "--request-rate: must be above 0, was {}", text);
  return rate;
}

// "KEY:VALUE" or "KEY=VALUE".
std::pair<std::string, std::string> pair_of(const std::string& text, char mark, const char* flag) {
  const size_t at = text.find(mark);
  if (at == std::string::npos || at == 0) fail(ErrorCode::kUsage, "{}: must be KEY{}VALUE, was {}", flag, mark, text);
  return {text.substr(0, at), text.substr(at + 1)};
}

LoadTarget ServeBench::target(const std::string& path) const {
  std::string base = base_url.empty() ? fmt::format("http://{}:{}", host, port) : base_url;
  while (!base.empty() && base.back() == '/') base.pop_back();
  LoadTarget target{.url = base + path, .headers = {}, .verify_certificate = !insecure};
  if (!api_key.empty()) target.headers.push_back("Authorization: Bearer " + api_key);
  for (const std::string& header : headers) {
    const auto [name, value] = pair_of(header, '=', "--header");
    target.headers.push_back(name + ": " + value);
  }
  return target;
}

// The model's name, and where its tokenizer is, as far as they are not given.
void ServeBench::ask_for_model() {
  if (!model.empty() && !tokenizer.empty()) return;
  const LoadTarget models = target("/v1/models");
  const Json list = get_json(models);
  const Json rows = list.is_object() ? list.value("data", Json::array()) : Json::array();
  for (const Json& row : rows) {
    if (!row.is_object() || !row.contains("id") || !row["id"].is_string()) continue;
    const std::string id = row["id"];
    if (!model.empty() && id != model) continue;
    model = id;
    const Json root = row.value("root", Json());
    if (tokenizer.empty()) tokenizer = root.is_string() ? root.get<std::string>() : id;
    return;
  }
  if (model.empty()) fail(ErrorCode::kIo, "{}: the server names no model", models.url);
  if (tokenizer.empty()) tokenizer = model;
}

std::vector<BenchPrompt> ServeBench::prompts(const Tokenizer& words) const {
  if (dataset_name == "random") {
    if (!dataset_path.empty()) fail(ErrorCode::kUsage, "--dataset-path: not with --dataset-name random");
    RandomDataset dataset = random;
    dataset.seed = seed;
    if (output_len) dataset.output_len = *output_len;
    return random_prompts(dataset, num_prompts, words);
  }
  if (dataset_path.empty()) fail(ErrorCode::kUsage, "--dataset-path: is needed with --dataset-name {}", dataset_name);
  const std::string text = read_file(dataset_path, kMaxDatasetBytes);
  if (dataset_name == "sharegpt") return sharegpt_prompts(text, dataset_path, num_prompts, output_len, seed, words);
  return custom_prompts(text, dataset_path, num_prompts, output_len, words);
}

Json ServeBench::common_body() const {
  Json body = {{"model", model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  // Random prompts lead to no end of their own.
  if (ignore_eos || dataset_name == "random") body["ignore_eos"] = true;
  const auto add = [&](const char* name, const auto& value) {
    if (value) body[name] = *value;
  };
  add("temperature", temperature);
  add("top_p", top_p);
  add("top_k", top_k);
  add("min_p", min_p);
  add("frequency_penalty", frequency_penalty);
  add("presence_penalty", presence_penalty);
  add("repetition_penalty", repetition_penalty);
  if (logprobs && is_chat()) body["top_logprobs"] = *logprobs;
  if (logprobs) body["logprobs"] = is_chat() ? Json(true) : Json(*logprobs);
  if (!extra_body.empty()) {
    const Json extra = Json::parse(extra_body, nullptr, false);
    if (!extra.is_object()) fail(ErrorCode::kUsage, "--extra-body: not a JSON object: {}", extra_body);
    body.update(extra);
  }
  return body;
}

std::vector<LoadRequest> ServeBench::requests(const std::vector<BenchPrompt>& all) const {
  Json body = common_body();
  const std::vector<double> times = arrivals();
  std::vector<LoadRequest> requests;
  for (size_t i = 0; i < all.size(); ++i) {
    if (is_chat()) {
      body["messages"] = Json::array({{{"role", "user"}, {"content", all[i].text}}});
      body["max_completion_tokens"] = all[i].output_len;
    } else {
      body["prompt"] = all[i].text;
      body["max_tokens"] = all[i].output_len;
    }
    requests.push_back({.body = body.dump(-1, ' ', false, Json::error_handler_t::replace), .at = times[i]});
  }
  return requests;
}

// Intervals from a gamma distribution of shape `burstiness` (1: a Poisson process), scaled so that all of them together
// are num_prompts / rate: no seed makes a run faster than asked for.
std::vector<double> ServeBench::arrivals() const {
  std::vector<double> times(static_cast<size_t>(num_prompts), 0.0);
  const double rate = rate_of(request_rate);
  if (!std::isfinite(rate)) return times;
  std::mt19937_64 engine(seed);
  std::gamma_distribution<double> interval(burstiness, 1.0 / (rate * burstiness));
  double sum = 0;
  for (double& time : times) time = sum += std::isfinite(burstiness) ? interval(engine) : 1.0 / rate;
  const double scale = static_cast<double>(num_prompts) / rate / sum;
  for (double& time : times) time *= scale;
  return times;
}

// One request, tried again while the server is not there yet.
void ServeBench::wait_until_ready(const LoadRequest& request) const {
  const LoadTarget route = target(endpoint);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(ready_check_timeout);
  constexpr long kUnavailable = 503;
  for (bool told = false;; told = true) {
    const LoadResult result = run_load(route, {{.body = request.body}}, {}).front();
    if (result.success) return;
    const bool may_come = result.status == 0 || result.status == kUnavailable;
    if (!may_come || std::chrono::steady_clock::now() >= give_up) {
      fail(ErrorCode::kIo, "{}: the test request failed: {}", route.url, result.error);
    }
    if (!told) log_info("{}: {}; trying again for {} s", route.url, result.error, ready_check_timeout);
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

void ServeBench::warm_up(const LoadRequest& request) const {
  if (num_warmups <= 0) return;
  std::vector<LoadRequest> same(static_cast<size_t>(num_warmups), {.body = request.body});
  run_load(target(endpoint), same, {.max_concurrency = max_concurrency, .on_progress = nullptr});
}

ReportOptions ServeBench::report_options(double duration) const {
  ReportOptions options{.duration = duration,
                        .request_rate = rate_of(request_rate),
                        .max_concurrency = max_concurrency,
                        .metrics = parts_of(percentile_metrics),
                        .percentiles = {},
                        .goodput = {},
                        .detailed = save_detailed};
  const auto is_one_of = [](const std::string& name, std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* known) { return name == known; });
  };
  for (const std::string& name : options.metrics) {
    if (!is_one_of(name, {"ttft", "tpot", "itl", "e2el"})) {
      fail(ErrorCode::kUsage, "--percentile-metrics: must be of ttft, tpot, itl, e2el, was {}", name);
    }
  }
  for (const std::string& part : parts_of(metric_percentiles)) {
    options.percentiles.push_back(number_of(part, "--metric-percentiles"));
    if (options.percentiles.back() < 0 || options.percentiles.back() > 100) {
      fail(ErrorCode::kUsage, "--metric-percentiles: must be from 0 to 100, was {}", part);
    }
  }
  for (const std::string& text : goodput) {
    const auto [name, limit] = pair_of(text, ':', "--goodput");
    if (!is_one_of(name, {"ttft", "tpot", "e2el"})) {
      fail(ErrorCode::kUsage, "--goodput: must be of ttft, tpot, e2el, was {}", name);
    }
    options.goodput[name] = number_of(limit, "--goodput");
  }
  return options;
}

Json ServeBench::head(const std::string& date) const {
  Json json = {{"date", date},
               {"endpoint_type", backend},
               {"backend", backend},
               {"label", label.empty() ? Json() : Json(label)},
               {"model_id", model},
               {"tokenizer_id", tokenizer},
               {"num_prompts", num_prompts}};
  for (const std::string& text : metadata) {
    const auto [key, value] = pair_of(text, '=', "--metadata");
    json[key] = value;
  }
  const double rate = rate_of(request_rate);
  json["request_rate"] = std::isfinite(rate) ? Json(rate) : Json("inf");
  json["burstiness"] = burstiness;
  json["max_concurrency"] = max_concurrency > 0 ? Json(max_concurrency) : Json();
  json["octet_bench"] = {{"version", build::kVersion}, {"commit", build::kCommit}};
  return json;
}

void ServeBench::save(const Json& result, const std::string& date) const {
  if (!save_result && !save_detailed && result_filename.empty()) return;
  const std::string concurrency = max_concurrency > 0 ? fmt::format("-concurrency{}", max_concurrency) : "";
  const std::string name = fmt::format("{}-{}qps{}-{}-{}.json", label.empty() ? backend : label, request_rate,
                                       concurrency, model.substr(model.rfind('/') + 1), date);
  const std::filesystem::path folder = result_dir;
  if (!result_dir.empty()) std::filesystem::create_directories(folder);
  const std::string path = (folder / (result_filename.empty() ? name : result_filename)).string();
  write_file(path, result.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  print_now("Results: " + path + "\n");
}

std::string date_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &parts);
  return text;
}

void ServeBench::run() {
  if (endpoint.empty()) endpoint = is_chat() ? "/v1/chat/completions" : "/v1/completions";
  report_options(1);  // what is wrong is said before anything runs
  ask_for_model();
  const Tokenizer words = Tokenizer::from_folder(resolve_model(tokenizer));
  const std::vector<BenchPrompt> all = prompts(words);
  const std::vector<LoadRequest> load = requests(all);
  wait_until_ready(load.front());
  warm_up(load.front());
  ProgressBar bar("serving", "requests");
  const auto start = std::chrono::steady_clock::now();
  std::vector<LoadResult> results = run_load(
      target(endpoint), load,
      {.max_concurrency = max_concurrency, .on_progress = [&](int64_t done) { bar.update(done, num_prompts); }});
  const double duration = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::vector<BenchSample> samples;
  int64_t num_shown = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    LoadResult& result = results[i];
    if (!result.success && num_shown++ < 10) log_warning("request {} failed: {}", i, result.error);
    if (!result.num_output_tokens) {  // a server without usage
      result.num_output_tokens = static_cast<int64_t>(words.encode(result.text, AddSpecialTokens::kNo).size());
    }
    samples.push_back({.num_prompt_tokens = all[i].num_tokens, .result = std::move(result)});
  }
  const BenchReport report = bench_report(samples, report_options(duration));
  print_now(report.text);
  const std::string date = date_now();
  Json json = head(date);
  json.update(report.json);
  save(json, date);
  if (report.json["completed"] == 0) fail(ErrorCode::kIo, "every request failed");
}

void ServeBench::add_server_flags(CLI::App& app) {
  const auto flag = [&](CLI::Option* option) { option->group("Server"); };
  flag(app.add_option("--backend", backend, "openai (completions) or openai-chat")
           ->check(CLI::IsMember({"openai", "openai-chat"}))
           ->capture_default_str());
  flag(app.add_option("--base-url", base_url, "http://host:port, instead of --host and --port"));
  flag(app.add_option("--host", host, "of the server")->capture_default_str());
  flag(app.add_option("--port", port, "of the server")->capture_default_str());
  flag(app.add_option("--endpoint", endpoint, "path (default: the backend's)"));
  flag(app.add_option("--model", model, "name in requests (default: the server's first)"));
  flag(app.add_option("--tokenizer", tokenizer, "folder or name (default: what the server's model is loaded from)"));
  flag(app.add_option("--api-key", api_key, "key to send")->envname("OPENAI_API_KEY"));
  flag(app.add_option("--header", headers, "KEY=VALUE to send with each request"));
  flag(app.add_flag("--insecure", insecure, "accept any certificate"));
  flag(app.add_option("--ready-check-timeout-sec", ready_check_timeout, "how long to wait for the server")
           ->capture_default_str());
}

void ServeBench::add_dataset_flags(CLI::App& app) {
  const auto flag = [&](CLI::Option* option) { option->capture_default_str()->group("Prompts"); };
  flag(app.add_option("--dataset-name", dataset_name, "random, sharegpt, custom (JSON lines)")
           ->check(CLI::IsMember({"random", "sharegpt", "custom"})));
  flag(app.add_option("--dataset-path", dataset_path, "the file of sharegpt and custom"));
  flag(app.add_option("--num-prompts", num_prompts, "requests")->check(CLI::PositiveNumber));
  flag(app.add_option("--random-input-len,--input-len", random.input_len, "prompt tokens of random")
           ->check(CLI::PositiveNumber));
  flag(app.add_option("--random-output-len", random.output_len, "output tokens of random")->check(CLI::PositiveNumber));
  flag(app.add_option("--random-range-ratio", random.range_ratio, "lengths vary by this share, up and down")
           ->check(CLI::Range(0.0, 1.0)));
  flag(app.add_option("--random-prefix-len", random.prefix_len, "tokens that all prompts begin with")
           ->check(CLI::NonNegativeNumber));
  flag(app.add_option("--output-len,--sharegpt-output-len,--custom-output-len", output_len,
                      "output tokens, instead of the dataset's")
           ->check(CLI::PositiveNumber));
  flag(app.add_option("--seed", seed, "of prompts and times"));
}

void ServeBench::add_load_flags(CLI::App& app) {
  const auto flag = [&](CLI::Option* option) { option->capture_default_str()->group("Load"); };
  flag(app.add_option("--request-rate", request_rate, "requests per second; inf: all at once"));
  flag(
      app.add_option("--burstiness", burstiness, "shape of the intervals' gamma distribution; 1: Poisson, less: bursts")
          ->check(CLI::PositiveNumber));
  flag(app.add_option("--max-concurrency", max_concurrency, "requests at once; 0: any number")
           ->check(CLI::NonNegativeNumber));
  flag(
      app.add_option("--num-warmups", num_warmups, "requests before the measured ones")->check(CLI::NonNegativeNumber));
  const auto sampling = [&](CLI::Option* option) { option->group("Requests"); };
  sampling(app.add_flag("--ignore-eos", ignore_eos, "always so many output tokens (with random: always)"));
  sampling(app.add_option("--temperature", temperature, "sent when given; so are the next ones"));
  sampling(app.add_option("--top-p", top_p, ""));
  sampling(app.add_option("--top-k", top_k, ""));
  sampling(app.add_option("--min-p", min_p, ""));
  sampling(app.add_option("--frequency-penalty", frequency_penalty, ""));
  sampling(app.add_option("--presence-penalty", presence_penalty, ""));
  sampling(app.add_option("--repetition-penalty", repetition_penalty, ""));
  sampling(app.add_option("--logprobs", logprobs, "alternatives to ask for"));
  sampling(app.add_option("--extra-body", extra_body, "a JSON object to add to each body"));
}

void ServeBench::add_result_flags(CLI::App& app) {
  const auto flag = [&](CLI::Option* option) { option->capture_default_str()->group("Results"); };
  flag(app.add_option("--percentile-metrics", percentile_metrics, "of ttft, tpot, itl, e2el"));
  flag(app.add_option("--metric-percentiles", metric_percentiles, "25,50,99 or the like"));
  flag(app.add_option("--goodput", goodput, "ttft:500 tpot:50 e2el:5000: count what keeps these milliseconds"));
  flag(app.add_flag("--save-result", save_result, "write a JSON file"));
  flag(app.add_flag("--save-detailed", save_detailed, "write it with the figures of each request"));
  flag(app.add_option("--result-dir", result_dir, "its folder"));
  flag(app.add_option("--result-filename", result_filename, "its name; saves without --save-result, too"));
  flag(app.add_option("--label", label, "first part of its name (default: the backend)"));
  flag(app.add_option("--metadata", metadata, "KEY=VALUE to put into it"));
}

}  // namespace

void add_bench_serve(CLI::App& bench) {
  auto command = std::make_shared<ServeBench>();
  CLI::App* app = bench.add_subcommand("serve", "A running server under load: TTFT, TPOT, ITL, throughput, goodput");
  command->add_server_flags(*app);
  command->add_dataset_flags(*app);
  command->add_load_flags(*app);
  command->add_result_flags(*app);
  app->callback([command] { command->run(); });
}

}  // namespace octet
