// octet generate: prompts in, continuations out.
#include <iostream>
#include <iterator>

#include "octet/base/log.h"
#include "octet/base/queue.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

constexpr int32_t kDefaultMaxTokens = 256;

struct GenerateCommand {
  ModelFlags model;
  SamplingFlags sampling;
  std::vector<std::string> prompts;
  std::string tokens;
  bool json = false, stats = false;

  void run();
  void stream(Llm& llm, const Prompt& prompt, const SamplingParams& params) const;
};

std::vector<Prompt> read_prompts(const GenerateCommand& command) {
  std::vector<Prompt> prompts;
  for (const std::string& text : command.prompts) prompts.push_back(Prompt::of_text(text));
  if (!command.tokens.empty()) {
    std::vector<int32_t> ids;
    for (const std::string& id : CLI::detail::split(command.tokens, ','))
      ids.push_back(static_cast<int32_t>(parse_count(id)));
    prompts.push_back(Prompt::of_token_ids(std::move(ids)));
  }
  if (prompts.empty()) {
    prompts.push_back(
        Prompt::of_text(std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>())));
  }
  return prompts;
}

void GenerateCommand::stream(Llm& llm, const Prompt& prompt, const SamplingParams& params) const {
  Queue<RequestOutput> done(1);
  llm.submit(prompt, params, [&](const RequestOutput& output, std::span<const OutputDelta> deltas) {
    for (const OutputDelta& delta : deltas) print_now(delta.text);
    if (output.finished && !done.try_push(output)) log_warning("finished twice");
  });
  const auto output = done.pop();
  print_now("\n");
  const CompletionOutput& answer = output->outputs.front();
  if (answer.finish_reason == FinishReason::kError) fail(ErrorCode::kInternal, "{}", answer.error);
  if (!stats) return;
  const RequestTimes& times = output->times;
  const auto num_tokens = static_cast<double>(answer.token_ids.size());
  const double decode_us = static_cast<double>(times.last_token_us - times.first_token_us);
  log_info("{} prompt tokens, {} output tokens, time to first token {:.1f} ms, {:.1f} tok/s",
           output->prompt_token_ids.size(), answer.token_ids.size(),
           static_cast<double>(times.first_token_us - times.arrival_us) / 1e3,
           decode_us > 0 ? (num_tokens - 1) * 1e6 / decode_us : 0.0);
}

void GenerateCommand::run() {
  LlmOptions options = model.options();
  if (prompts.empty() && !tokens.empty() && json) options.tokenizing = LlmOptions::Tokenizing::kOff;
  Llm llm(options);
  print_report(llm.engine().report());
  SamplingParams defaults = llm.default_sampling_params();
  defaults.max_tokens = kDefaultMaxTokens;
  const SamplingParams params = sampling.params(defaults);
  const std::vector<Prompt> all = read_prompts(*this);
  if (all.size() == 1 && params.n == 1 && !json) return stream(llm, all.front(), params);

  ProgressBar bar("generating", "prompts");
  int64_t num_done = 0;
  const auto outputs = llm.generate(all, std::span(&params, 1), [&](const RequestOutput&) {
    bar.update(++num_done, static_cast<int64_t>(all.size()));
  });
  for (const RequestOutput& output : outputs) {
    if (json) {
      print_now(output_json(output).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
      continue;
    }
    for (const CompletionOutput& answer : output.outputs)
      print_now(fmt::format("[{}] {}\n", answer.index, answer.text));
  }
}

}  // namespace

void add_generate(CLI::App& program) {
  auto command = std::make_shared<GenerateCommand>();
  CLI::App* app = program.add_subcommand("generate", "Continue prompts; streams the text of a single one");
  command->model.add_to(*app);
  command->sampling.add_to(*app);
  app->add_option("-p,--prompt", command->prompts, "prompt text; may be given several times (default: standard input)")
      ->allow_extra_args(false);
  app->add_option("--tokens", command->tokens, "prompt as token ids: 1,2,3");
  app->add_flag("--json", command->json, "one JSON line per prompt: text, token ids, logprobs, finish reason");
  app->add_flag("--stats", command->stats, "speed of the answer, to stderr");
  app->callback([command] { command->run(); });
}

}  // namespace octet
