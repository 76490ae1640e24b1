#include "octet/evaluate/task_score.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <future>

#include "octet/base/error.h"
#include "octet/evaluate/log_likelihood.h"
#include "octet/evaluate/number_answer.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 3> kStops = {"Question:", "</s>", "<|im_end|>"};

size_t first_stop(const std::string& text) {
  size_t first = std::string::npos;
  for (const std::string_view stop : kStops) first = std::min(first, text.find(stop));
  return first;
}

double num_characters(std::string_view text) {
  return static_cast<double>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// Tokens come on the engine's thread; the answer ends at a stop, at the model's end of text or at its longest.
std::string generate(const TaskModel& model, const std::string& prompt) {
  std::vector<int32_t> ids = model.tokenizer.encode(prompt, AddSpecialTokens::kYes);
  const auto room = static_cast<size_t>(model.engine.report().max_model_len - kMaxAnswerTokens);
  if (ids.size() > room) ids.erase(ids.begin(), ids.end() - static_cast<int64_t>(room));
  struct Answer {
    std::vector<int32_t> ids;
    std::string error;
    std::promise<void> finished;
  } answer;
  Request request;
  request.id = "answer";
  request.prompt_token_ids = std::move(ids);
  request.sampling.temperature = 0.0;
  request.sampling.max_tokens = kMaxAnswerTokens;
  request.eos_token_ids = model.eos_token_ids;
  request.on_event = [&answer, &model](const RequestEvent& event) {
    for (const SequenceDelta& delta : event.deltas) {
      answer.ids.insert(answer.ids.end(), delta.token_ids.begin(), delta.token_ids.end());
      if (delta.finish_reason == FinishReason::kError) answer.error = delta.error;
    }
    if (event.finished) {
      answer.finished.set_value();
    } else if (first_stop(model.tokenizer.decode(answer.ids, SpecialTokens::kSkip)) != std::string::npos) {
      model.engine.abort("answer");
    }
  };
  if (model.engine.submit(std::move(request)) != SubmitResult::kAccepted)
    fail(ErrorCode::kInternal, "the engine takes no request");
  answer.finished.get_future().get();
  if (!answer.error.empty()) fail(ErrorCode::kInternal, "evaluation failed: {}", answer.error);
  std::string text = model.tokenizer.decode(answer.ids, SpecialTokens::kSkip);
  if (const size_t stop = first_stop(text); stop != std::string::npos) text.erase(stop);
  return text;
}

TaskAnswer ask(const Task& task, const TaskQuestion& question, const TaskModel& model) {
  TaskAnswer answer;
  if (task.generates) {
    answer.text = generate(model, question.contexts[0]);
    answer.scores = {same_answer(strict_answer(answer.text), question.answer) ? 1.0 : 0.0,
                     same_answer(flexible_answer(answer.text), question.answer) ? 1.0 : 0.0};
    return answer;
  }
  for (size_t i = 0; i < question.contexts.size(); ++i) {
    const EncodedPair pair = encode_pair(model.tokenizer, question.contexts[i], question.continuations[i],
                                         model.engine.report().max_model_len);
    answer.log_likelihoods.push_back(log_likelihood(model.engine, pair));
  }
  answer.scores = choice_scores(task, question, answer.log_likelihoods);
  return answer;
}

std::vector<std::string> metric_names(const Task& task) {
  if (task.generates) return {"exact_match,strict-match", "exact_match,flexible-extract"};
  std::vector<std::string> names;
  for (const TaskMetric metric : task.metrics)
    names.emplace_back(metric == TaskMetric::kNormalisedAccuracy ? "acc_norm" : "acc");
  return names;
}

TaskResult::Metric mean_of(std::string name, const std::vector<TaskAnswer>& answers, size_t metric) {
  const auto n = static_cast<double>(answers.size());
  double sum = 0.0, squares = 0.0;
  for (const TaskAnswer& answer : answers) sum += answer.scores[metric];
  for (const TaskAnswer& answer : answers) squares += std::pow(answer.scores[metric] - sum / n, 2);
  return {.name = std::move(name),
          .value = sum / n,
          .standard_error = answers.size() > 1 ? std::sqrt(squares / (n - 1) / n) : 0.0};
}

}  // namespace

std::vector<double> choice_scores(const Task& task, const TaskQuestion& question,
                                  std::span<const double> log_likelihoods) {
  const auto is_right = [&](const std::vector<double>& values) {
    const auto likeliest = std::max_element(values.begin(), values.end()) - values.begin();
    return static_cast<size_t>(likeliest) == question.gold ? 1.0 : 0.0;
  };
  std::vector<double> plain(log_likelihoods.begin(), log_likelihoods.end()), scores;
  for (const TaskMetric metric : task.metrics) {
    if (metric == TaskMetric::kAccuracy) scores.push_back(is_right(plain));
    if (metric == TaskMetric::kNormalisedAccuracy) {
      std::vector<double> normalised = plain;
      for (size_t i = 0; i < normalised.size(); ++i)
        normalised[i] /= std::max(1.0, num_characters(question.choices[i]));
      scores.push_back(is_right(normalised));
    }
    if (metric == TaskMetric::kTrueMass) {
      const double most = *std::max_element(plain.begin(), plain.end());
      double all = 0.0, of_true = 0.0;
      for (size_t i = 0; i < plain.size(); ++i) {
        const double mass = std::exp(plain[i] - most);
        all += mass;
        if (question.is_true[i]) of_true += mass;
      }
      scores.push_back(of_true / all);
    }
  }
  return scores;
}

TaskResult score_task(const Task& task, std::span<const TaskQuestion> questions, const TaskModel& model,
                      const std::function<void(int64_t)>& on_question) {
  TaskResult result;
  for (const TaskQuestion& question : questions) {
    result.answers.push_back(ask(task, question, model));
    if (on_question) on_question(static_cast<int64_t>(result.answers.size()));
  }
  const std::vector<std::string> names = metric_names(task);
  for (size_t i = 0; i < names.size(); ++i) result.metrics.push_back(mean_of(names[i], result.answers, i));
  return result;
}

}  // namespace octet
