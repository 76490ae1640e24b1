// octet eval task: questions from a file, asked and judged as lm-evaluation-harness does.
#include <algorithm>

#include "octet/base/file.h"
#include "octet/evaluate/task_score.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

struct TaskCommand {
  ModelFlags model;
  std::string task, data, examples, answers;
  std::optional<int> num_fewshot;
  int64_t limit = 0;
  bool json = false;

  void run() const;
  std::vector<TaskQuestion> questions(const Task& chosen, int shots) const;
  void write_answers(const std::vector<TaskQuestion>& questions, const TaskResult& result) const;
};

std::vector<TaskQuestion> TaskCommand::questions(const Task& chosen, int shots) const {
  const TaskLines lines = read_task_data(data);
  if (shots == 0) return make_questions(chosen, lines, {}, 0, limit);
  if (examples.empty())
    fail(ErrorCode::kUsage, "{} examples before each question: say --examples FILE, or --num-fewshot 0", shots);
  return make_questions(chosen, lines, read_task_data(examples), shots, limit);
}

// A JSON line for each question: what was asked and what came of it.
void TaskCommand::write_answers(const std::vector<TaskQuestion>& questions, const TaskResult& result) const {
  std::string lines;
  for (size_t i = 0; i < questions.size(); ++i) {
    const TaskQuestion& question = questions[i];
    Json line = {{"contexts", question.contexts}};
    Json scores = Json::object();
    for (size_t m = 0; m < result.metrics.size(); ++m) scores[result.metrics[m].name] = result.answers[i].scores[m];
    if (question.choices.empty()) {
      line.update({{"text", result.answers[i].text}, {"answer", question.answer}});
    } else {
      line.update({{"continuations", question.continuations},
                   {"log_likelihoods", result.answers[i].log_likelihoods},
                   {"gold", question.gold}});
    }
    line["scores"] = scores;
    lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  write_file(answers, lines);
}

void TaskCommand::run() const {
  const Task& chosen = find_task(task);
  const int shots = num_fewshot.value_or(chosen.num_fewshot);
  const std::vector<TaskQuestion> asked = questions(chosen, shots);
  LlmOptions options = model.options();
  options.engine.enable_prefix_caching = false;
  Llm llm(options);
  ProgressBar bar(task, "questions");
  const TaskModel asked_model{
      .engine = llm.engine(), .tokenizer = *llm.tokenizer(), .eos_token_ids = llm.eos_token_ids()};
  const TaskResult result = score_task(chosen, asked, asked_model,
                                       [&](int64_t done) { bar.update(done, static_cast<int64_t>(asked.size())); });
  if (!answers.empty()) write_answers(asked, result);
  if (json) {
    Json metrics = Json::object();
    for (const TaskResult::Metric& metric : result.metrics)
      metrics[metric.name] = {{"value", metric.value}, {"standard_error", metric.standard_error}};
    print_now(
        Json{{"task", task}, {"num_fewshot", shots}, {"num_questions", asked.size()}, {"metrics", metrics}}.dump() +
        "\n");
    return;
  }
  for (const TaskResult::Metric& metric : result.metrics) {
    print_now(fmt::format("{} {} {:.4f} +- {:.4f} ({} questions, {} examples)\n", task, metric.name, metric.value,
                          metric.standard_error, asked.size(), shots));
  }
}

}  // namespace

void add_eval_task(CLI::App& eval) {
  auto command = std::make_shared<TaskCommand>();
  CLI::App* app =
      eval.add_subcommand("task", "Questions from a file, with the prompts and the scoring of lm-evaluation-harness");
  std::string names;
  for (const Task& task : tasks()) names += fmt::format("{}{}", names.empty() ? "" : ", ", task.name);
  app->add_option("task", command->task, names)->required();
  command->model.add_to(*app, ModelFlags::Model::kFlag);
  app->add_option("--data", command->data, "questions: JSON lines with the fields of the task's data set")
      ->required()
      ->check(CLI::ExistingFile);
  app->add_option("--examples", command->examples, "the same, for the examples before each question")
      ->check(CLI::ExistingFile);
  app->add_option("--num-fewshot", command->num_fewshot, "examples before each question (default: the task's)")
      ->check(CLI::Range(0, 1000));
  app->add_option("--limit", command->limit, "only the first questions (0: all)")->capture_default_str();
  app->add_option("--answers", command->answers, "file to write: what was asked and answered, a JSON line a question");
  app->add_flag("--json", command->json, "one JSON object");
  app->callback([command] { command->run(); });
}

}  // namespace octet
