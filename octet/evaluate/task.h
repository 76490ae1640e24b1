// Tasks: questions from a file whose answers can be judged, under the names, with the prompts and by the scoring of
// lm-evaluation-harness (0.4.13). Files are JSON lines with the fields of the data sets on the Hub:
//   arc_easy, arc_challenge        question, choices {text, label}, answerKey
//   hellaswag                      activity_label, ctx_a, ctx_b, endings, label
//   mmlu                           question, subject, choices, answer (index)
//   winogrande                     sentence, option1, option2, answer ("1", "2")
//   truthfulqa_mc1, truthfulqa_mc2 question, mc1_targets / mc2_targets {choices, labels}
//   gsm8k                          question, answer
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"

namespace octet {

// One question, ready to be asked.
struct TaskQuestion {
  // What is scored: the continuation after the context, a pair for each choice. The contexts, or the continuations, are
  // often all the same. One pair of a task that generates: its continuation is not asked for.
  std::vector<std::string> contexts, continuations;
  std::vector<std::string> choices;  // by whose length log-likelihoods are normalised
  size_t gold = 0;                   // the right choice
  std::vector<bool> is_true;         // of truthfulqa_mc2, where several are
  std::string answer;                // of a task that generates
};

enum class TaskMetric : uint8_t {
  kAccuracy,            // the likeliest choice is the right one
  kNormalisedAccuracy,  // the same, log-likelihoods divided by the choices' lengths in characters
  kTrueMass,            // the share of the true choices in the probabilities of all
};

// How a task makes prompts of its file's lines.
struct Task {
  std::string_view name;
  bool generates = false;
  std::vector<TaskMetric> metrics;
  int num_fewshot = 0;  // as the harness has it by default (or, for the others, as its leaderboard had it)
  // Which lines of the few-shot file: drawn at random; the same, never the question itself; or the first ones, of the
  // same subject.
  enum class FewShot : uint8_t { kRandom, kRandomOthers, kFirst } few_shot = FewShot::kRandom;
  std::string (*description)(const JsonObject& line) = nullptr;            // before all
  std::string (*question)(const JsonObject& line) = nullptr;               // up to where the answer begins
  std::string (*answer)(const JsonObject& line) = nullptr;                 // of an example
  void (*fill)(const JsonObject& line, TaskQuestion& question) = nullptr;  // all but contexts
  // Of winogrande, where each choice is a context of its own.
  std::vector<std::string> (*own_contexts)(const JsonObject& line) = nullptr;
};

// All, and by name. Throws Error{kUsage} for an unknown one.
std::span<const Task> tasks();
const Task& find_task(std::string_view name);

struct TaskLines {
  std::vector<Json> lines;
  std::string where;  // "test.jsonl", for errors
};
// Throws Error{kInvalid} with the line's number for one that is no object.
TaskLines read_task_data(const std::string& path);

// The first `limit` (0: all) questions of `data`, each after `num_fewshot` examples of `examples`. Throws
// Error{kInvalid} naming the line and field that is missing or wrong, Error{kUsage} when there are too few examples.
std::vector<TaskQuestion> make_questions(const Task& task, const TaskLines& data, const TaskLines& examples,
                                         int num_fewshot, int64_t limit);

}  // namespace octet
