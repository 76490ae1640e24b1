// octet bench latency, octet bench throughput: vLLM's flags and JSON keys, random prompts, nothing reused between
// requests.
#include <chrono>
#include <fstream>
#include <random>

#include "octet/base/build_facts.h"
#include "octet/base/file.h"
#include "octet/base/log.h"
#include "octet/device/device.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/profile_table.h"
#include "tools/statistics.h"
#include "tools/terminal.h"

namespace octet {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Different random token ids for every request of every round.
class RandomPrompts {
 public:
  RandomPrompts(uint64_t seed, int64_t vocab_size) : random_(seed), ids_(0, static_cast<int32_t>(vocab_size - 1)) {}
  Prompt make(int64_t length) {
    std::vector<int32_t> ids(static_cast<size_t>(length));
    for (int32_t& id : ids) id = ids_(random_);
    return Prompt::of_token_ids(std::move(ids));
  }

 private:
  std::mt19937_64 random_;
  std::uniform_int_distribution<int32_t> ids_;
};

// How tokens are drawn; vLLM's names.
struct DrawFlags {
  double temperature = 0.0, top_p = 1.0, min_p = 0.0;
  int32_t top_k = 0;

  void add_to(CLI::App& app) {
    app.add_option("--temperature", temperature, "of the draw of tokens; 0: the likeliest")->capture_default_str();
    app.add_option("--top-k", top_k, "draw from so many tokens; 0: all")->capture_default_str();
    app.add_option("--top-p", top_p, "draw from the likeliest tokens of this probability")->capture_default_str();
    app.add_option("--min-p", min_p, "draw from tokens of this share of the likeliest's")->capture_default_str();
  }
};

SamplingParams fixed_length(int64_t output_len, const DrawFlags& draw) {
  SamplingParams params;
  params.temperature = draw.temperature;
  params.top_k = draw.top_k;
  params.top_p = draw.top_p;
  params.min_p = draw.min_p;
  params.ignore_eos = true;
  params.max_tokens = static_cast<int32_t>(output_len);
  params.detokenize = false;
  return params;
}

void write_json(const std::string& path, const Json& json) {
  if (!path.empty()) write_file(path, json.dump(2) + "\n");
}

Json build_json() {
  return {{"version", build::kVersion}, {"commit", build::kCommit}, {"processor", cpu_description()}};
}

struct LatencyCommand {
  ModelFlags model;
  DrawFlags draw;
  int64_t input_len = 32, output_len = 128, num_iters = 30, num_iters_warmup = 10;
  std::vector<int64_t> batch_sizes = {8};
  std::string output_json;
  bool profile = false, profile_prompts = false;

  struct Iteration {
    double latency_s = 0, ttft_s = 0, itl_s = 0;
  };
  Iteration iterate(Llm& llm, RandomPrompts& prompts, int64_t batch_size) const;
  Json measure(Llm& llm, RandomPrompts& prompts, int64_t batch_size) const;
  void run() const;
};

LatencyCommand::Iteration LatencyCommand::iterate(Llm& llm, RandomPrompts& prompts, int64_t batch_size) const {
  std::vector<Prompt> batch;
  for (int64_t i = 0; i < batch_size; ++i) batch.push_back(prompts.make(input_len));
  const SamplingParams params = fixed_length(output_len, draw);
  const auto start = Clock::now();
  const auto outputs = llm.generate(batch, std::span(&params, 1));
  Iteration result{.latency_s = seconds_since(start)};
  // Of the batch: until every sequence has its first token, and per further token.
  int64_t first_us = 0, begin_us = INT64_MAX, last_us = 0;
  for (const RequestOutput& output : outputs) {
    const CompletionOutput& completion = output.outputs.front();
    if (completion.finish_reason == FinishReason::kError) fail(ErrorCode::kInternal, "{}", completion.error);
    begin_us = std::min(begin_us, output.times.arrival_us);
    first_us = std::max(first_us, output.times.first_token_us);
    last_us = std::max(last_us, output.times.last_token_us);
  }
  result.ttft_s = static_cast<double>(first_us - begin_us) / 1e6;
  if (output_len > 1)
    result.itl_s = static_cast<double>(last_us - first_us) / 1e6 / static_cast<double>(output_len - 1);
  return result;
}

// One batch size: printed, and as JSON.
Json LatencyCommand::measure(Llm& llm, RandomPrompts& prompts, int64_t batch_size) const {
  ProgressBar bar(fmt::format("latency, batch {}", batch_size), "iterations");
  std::vector<double> latencies, ttfts, itls;
  for (int64_t i = 0; i < num_iters_warmup + num_iters; ++i) {
    const Iteration one = iterate(llm, prompts, batch_size);
    bar.update(i + 1, num_iters_warmup + num_iters);
    if (i < num_iters_warmup) continue;
    latencies.push_back(one.latency_s);
    ttfts.push_back(one.ttft_s);
    itls.push_back(one.itl_s);
  }
  const double ttft = median(ttfts), itl = median(itls);
  const double prefill_rate = static_cast<double>(input_len * batch_size) / ttft;
  const double decode_rate = itl > 0 ? static_cast<double>(batch_size) / itl : 0;
  const double average = mean(latencies);
  Json json = {{"avg_latency", average}, {"latencies", latencies}};
  for (const int p : {10, 25, 50, 75, 90, 99}) json["percentiles"][std::to_string(p)] = percentile(latencies, p);
  json["ttft_s"] = ttft;
  json["itl_s"] = itl;
  json["itls_s"] = itls;
  json["prefill_tokens_per_second"] = prefill_rate;
  json["decode_tokens_per_second"] = decode_rate;
  json["input_len"] = input_len;
  json["output_len"] = output_len;
  json["batch_size"] = batch_size;
  print_now(fmt::format("Batch {}\nAvg latency: {:.4f} seconds\n", batch_size, average));
  for (const int p : {10, 25, 50, 75, 90, 99})
    print_now(fmt::format("{}% percentile latency: {:.4f} seconds\n", p, percentile(latencies, p)));
  print_now(fmt::format("TTFT {:.1f} ms, prefill {:.1f} tok/s, ITL {:.3f} ms, decode {:.1f} tok/s (medians of {})\n",
                        ttft * 1e3, prefill_rate, itl * 1e3, decode_rate, num_iters));
  return json;
}

void LatencyCommand::run() const {
  LlmOptions options = model.options();
  options.tokenizing = LlmOptions::Tokenizing::kOff;
  options.engine.enable_prefix_caching = false;
  Llm llm(options);
  const EngineReport& report = llm.engine().report();
  print_report(report);
  if ((profile || profile_prompts) && report.num_graphs == 0)
    fail(ErrorCode::kUnsupported,
         "--profile, --profile-prompts: steps are recorded on a GPU only, and not with --enforce-eager");
  RandomPrompts prompts(options.engine.seed, llm.engine().model_config().vocab_size);
  Json all = Json::array();
  for (const int64_t batch_size : batch_sizes) {
    Json json = measure(llm, prompts, batch_size);
    const auto add_profile = [&](const char* key, const ProfiledStep& step, double measured_s) {
      const StepProfile of_step = llm.engine().profile_step(step);
      print_now(profile_table(of_step, measured_s));
      json[key] = profile_json(of_step);
    };
    if (profile) {
      const int64_t num_tokens = input_len + output_len / 2;
      add_profile("profile", {.batch_size = batch_size, .num_tokens = num_tokens}, json["itl_s"].get<double>());
    }
    if (profile_prompts) {
      const int64_t prompts_at_once = std::min(batch_size, report.max_step_tokens / input_len);
      const double share = static_cast<double>(prompts_at_once) / static_cast<double>(batch_size);
      add_profile("profile_prompts", {.batch_size = prompts_at_once, .num_tokens = input_len, .num_new = input_len},
                  share * json["ttft_s"].get<double>());
    }
    json["load_seconds"] = report.load_seconds;
    json["start_seconds"] = report.start_seconds;
    json["weight_bytes"] = report.weight_bytes;
    json["kv_bytes_per_token"] = report.kv_bytes_per_token;
    json["quantization"] = report.quantization;
    json["device"] = report.device;
    json["build"] = build_json();
    all.push_back(std::move(json));
  }
  write_json(output_json, all.size() == 1 ? all.front() : all);
}

struct ThroughputCommand {
  ModelFlags model;
  DrawFlags draw;
  int64_t input_len = 1024, output_len = 128, num_prompts = 1000;
  std::string output_json, dataset_name = "random";
  void run() const;
};

void ThroughputCommand::run() const {
  LlmOptions options = model.options();
  options.tokenizing = LlmOptions::Tokenizing::kOff;
  options.engine.enable_prefix_caching = false;
  options.engine.workload = EngineOptions::Workload::kOffline;
  Llm llm(options);
  print_report(llm.engine().report());
  RandomPrompts prompts(options.engine.seed, llm.engine().model_config().vocab_size);
  std::vector<Prompt> all;
  for (int64_t i = 0; i < num_prompts; ++i) all.push_back(prompts.make(input_len));
  const SamplingParams params = fixed_length(output_len, draw);
  ProgressBar bar("throughput", "requests");
  int64_t num_done = 0;
  const auto start = Clock::now();
  const auto outputs =
      llm.generate(all, std::span(&params, 1), [&](const RequestOutput&) { bar.update(++num_done, num_prompts); });
  const double elapsed = seconds_since(start);
  int64_t prompt_tokens = 0, output_tokens = 0;
  for (const RequestOutput& output : outputs) {
    prompt_tokens += static_cast<int64_t>(output.prompt_token_ids.size());
    output_tokens += static_cast<int64_t>(output.outputs.front().token_ids.size());
  }
  const int64_t total = prompt_tokens + output_tokens;
  const auto rate = [&](int64_t count) { return static_cast<double>(count) / elapsed; };
  print_now(fmt::format("Throughput: {:.2f} requests/s, {:.2f} total tokens/s, {:.2f} output tokens/s\n",
                        rate(num_prompts), rate(total), rate(output_tokens)));
  print_now(fmt::format("Total num prompt tokens:  {}\nTotal num output tokens:  {}\n", prompt_tokens, output_tokens));
  write_json(output_json, {{"elapsed_time", elapsed},
                           {"num_requests", num_prompts},
                           {"total_num_tokens", total},
                           {"requests_per_second", rate(num_prompts)},
                           {"tokens_per_second", rate(total)},
                           {"output_tokens_per_second", rate(output_tokens)},
                           {"build", build_json()}});
}

void add_latency(CLI::App& bench) {
  auto command = std::make_shared<LatencyCommand>();
  CLI::App* app = bench.add_subcommand("latency", "One batch at a time: latency, TTFT, ITL");
  command->model.add_to(*app);
  command->draw.add_to(*app);
  app->add_option("--input-len", command->input_len, "prompt tokens")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_option("--output-len", command->output_len, "output tokens")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_option("--batch-size", command->batch_sizes, "requests at once; several sizes, as in 1,8,32, one by one")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_option("--num-iters", command->num_iters, "measured rounds")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_option("--num-iters-warmup", command->num_iters_warmup, "rounds before them")->capture_default_str();
  app->add_option("--output-json", command->output_json, "write the results here");
  app->add_flag("--profile", command->profile, "also where the time of a decode step goes, kernel by kernel (GPUs)");
  app->add_flag("--profile-prompts", command->profile_prompts, "the same of a step of as many whole prompts as fit");
  app->callback([command] { command->run(); });
}

void add_throughput(CLI::App& bench) {
  auto command = std::make_shared<ThroughputCommand>();
  CLI::App* app = bench.add_subcommand("throughput", "Many requests at once: tokens and requests per second");
  command->model.add_to(*app);
  command->draw.add_to(*app);
  app->add_option("--dataset-name", command->dataset_name, "random")
      ->check(CLI::IsMember({"random"}))
      ->capture_default_str();
  app->add_option("--input-len,--random-input-len", command->input_len, "prompt tokens")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_option("--output-len,--random-output-len", command->output_len, "output tokens")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_option("--num-prompts", command->num_prompts, "requests")->capture_default_str()->check(CLI::PositiveNumber);
  app->add_option("--output-json", command->output_json, "write the results here");
  app->callback([command] { command->run(); });
}

}  // namespace

void add_bench(CLI::App& program) {
  CLI::App* bench = program.add_subcommand("bench", "Measure speed");
  bench->require_subcommand(1);
  add_latency(*bench);
  add_throughput(*bench);
  add_bench_serve(*bench);
}

}  // namespace octet
