// A task's questions put to a model, and how many it answers as they are to be answered.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/evaluate/task.h"
#include "octet/text/tokenizer.h"

namespace octet {

struct TaskModel {
  Engine& engine;
  const Tokenizer& tokenizer;
  std::vector<int32_t> eos_token_ids;
};

// What came of one question.
struct TaskAnswer {
  std::vector<double> log_likelihoods;  // of its pairs
  std::string text;                     // of a task that generates
  std::vector<double> scores;           // as TaskResult::metrics, each 0..1
};

struct TaskResult {
  struct Metric {
    std::string name;  // the harness's: "acc", "acc_norm"; "exact_match,strict-match", "exact_match,flexible-extract"
    double value = 0.0;
    double standard_error = 0.0;  // of the mean over questions
  };
  std::vector<Metric> metrics;
  std::vector<TaskAnswer> answers;
};

// Greedy generation of at most kMaxAnswerTokens, up to "Question:", "</s>" or "<|im_end|>".
inline constexpr int32_t kMaxAnswerTokens = 256;

TaskResult score_task(const Task& task, std::span<const TaskQuestion> questions, const TaskModel& model,
                      const std::function<void(int64_t done)>& on_question = nullptr);

// The scores of a choice task's question by its log-likelihoods, one for each of the task's metrics.
std::vector<double> choice_scores(const Task& task, const TaskQuestion& question,
                                  std::span<const double> log_likelihoods);

}  // namespace octet
