// octet chat: a conversation in the terminal, with a local model or with a server.
#include <csignal>
#include <iostream>

#include "octet/base/log.h"
#include "octet/base/queue.h"
#include "tools/chat_server.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

constexpr int32_t kDefaultMaxTokens = 1024;

// Ctrl-C while an answer streams stops the answer; at the prompt it ends the program as usual.
volatile std::sig_atomic_t interrupted = 0;  // NOLINT: a signal handler can reach nothing else
extern "C" void note_interrupt(int) { interrupted = 1; }

class InterruptScope {
 public:
  InterruptScope() {
    interrupted = 0;
    struct sigaction action {};
    action.sa_handler = note_interrupt;
    sigaction(SIGINT, &action, &previous_);
  }
  ~InterruptScope() { sigaction(SIGINT, &previous_, nullptr); }
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct sigaction previous_ {};
};

struct ChatCommand {
  ModelFlags model;
  SamplingFlags sampling;
  std::string url, api_key, model_name, system_prompt, question;
  bool stats = false;

  void run();
};

// Answers one turn: streams the text and returns it.
using Answer = std::function<std::string(const Json& messages)>;

std::string answer_locally(Llm& llm, const SamplingParams& params, const Json& messages, const ChatCommand& command) {
  const InterruptScope scope;
  Queue<RequestOutput> done(1);
  const std::string id = llm.submit(llm.chat_prompt(messages), params,
                                    [&](const RequestOutput& output, std::span<const OutputDelta> deltas) {
                                      for (const OutputDelta& delta : deltas) print_now(delta.text);
                                      if (output.finished && !done.try_push(output)) log_warning("finished twice");
                                    });
  std::optional<RequestOutput> output;
  bool aborted = false;
  while (!(output = done.try_pop())) {
    if (interrupted && !aborted) {
      llm.abort(id);
      aborted = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  print_now("\n");
  const CompletionOutput& answer = output->outputs.front();
  if (answer.finish_reason == FinishReason::kError) fail(ErrorCode::kInternal, "{}", answer.error);
  if (command.stats) {
    const RequestTimes& times = output->times;
    const double decode_us = static_cast<double>(times.last_token_us - times.first_token_us);
    log_info("{} prompt tokens ({} cached), {} output tokens, first after {:.1f} ms, {:.1f} tok/s",
             output->prompt_token_ids.size(), output->num_cached_tokens, answer.token_ids.size(),
             static_cast<double>(times.first_token_us - times.arrival_us) / 1e3,
             decode_us > 0 ? static_cast<double>(answer.token_ids.size() - 1) * 1e6 / decode_us : 0.0);
  }
  return answer.text;
}

void converse(const ChatCommand& command, const Answer& answer) {
  Json messages = Json::array();
  const auto reset = [&] {
    messages = Json::array();
    if (!command.system_prompt.empty()) messages.push_back({{"role", "system"}, {"content", command.system_prompt}});
  };
  const auto ask = [&](const std::string& text) {
    messages.push_back({{"role", "user"}, {"content", text}});
    try {
      const std::string reply = answer(messages);
      messages.push_back({{"role", "assistant"}, {"content", reply}});
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalid || !command.question.empty()) throw;
      log_line(LogLevel::kError, error.what());  // this turn was refused (say, too long); the conversation goes on
      messages.erase(messages.size() - 1);
    }
  };
  reset();
  if (!command.question.empty()) return ask(command.question);
  const bool person = stdout_is_terminal();
  if (person) print_now("Ask away. Ctrl-C stops an answer; /reset forgets the conversation; /exit or Ctrl-D ends.\n");
  std::string line;
  while (true) {
    if (person) print_now("> ");
    if (!std::getline(std::cin, line) || line == "/exit" || line == "/quit") break;
    if (line == "/reset")
      reset();
    else if (!line.empty())
      ask(line);
  }
  if (person) print_now("\n");
}

void ChatCommand::run() {
  if (!url.empty()) {
    ChatServer server({.url = url, .api_key = api_key, .model = model_name.empty() ? model.model : model_name});
    return converse(*this, [&](const Json& messages) {
      const InterruptScope scope;
      std::string text = server.answer(messages, sampling.params(SamplingParams{.max_tokens = kDefaultMaxTokens}),
                                       print_now, [] { return interrupted != 0; });
      print_now("\n");
      return text;
    });
  }
  if (model.model.empty()) fail(ErrorCode::kUsage, "chat needs a MODEL, or --url of a server");
  Llm llm(model.options());
  print_report(llm.engine().report());
  SamplingParams defaults = llm.default_sampling_params();
  defaults.max_tokens = kDefaultMaxTokens;
  const SamplingParams params = sampling.params(defaults);
  converse(*this, [&](const Json& messages) { return answer_locally(llm, params, messages, *this); });
}

}  // namespace

void add_chat(CLI::App& program) {
  auto command = std::make_shared<ChatCommand>();
  CLI::App* app = program.add_subcommand("chat", "Talk with a model, here or on a server (--url)");
  command->model.add_to(*app);
  app->get_option("model")->required(false);
  command->sampling.add_to(*app);
  app->add_option("--url", command->url, "an OpenAI-compatible server, e.g. http://localhost:8000/v1");
  app->add_option("--api-key", command->api_key, "for --url (default: OPENAI_API_KEY)")->envname("OPENAI_API_KEY");
  app->add_option("--model-name", command->model_name, "model on the server (default: its first)");
  app->add_option("--system-prompt", command->system_prompt, "instructions before the conversation");
  app->add_option("-q,--question", command->question, "ask one question, print the answer, end");
  app->add_flag("--stats", command->stats, "speed of each answer, to stderr");
  app->callback([command] { command->run(); });
}

}  // namespace octet
