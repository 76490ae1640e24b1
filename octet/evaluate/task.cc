#include "octet/evaluate/task.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/evaluate/python_random.h"

namespace octet {
namespace {

constexpr uint32_t kFewShotSeed = 1234;  // the harness's
constexpr int64_t kMaxDataBytes = int64_t{1} << 30;

std::string place(const TaskLines& data, size_t line) { return fmt::format("{}: line {}", data.where, line + 1); }

// Which lines of the examples come before a question.
class Examples {
 public:
  Examples(const Task& task, const TaskLines& data, int count)
      : task_(task), data_(data), count_(static_cast<size_t>(count)) {}

  std::vector<size_t> choose(const Json& line) {
    if (count_ == 0) return {};
    switch (task_.few_shot) {
      case Task::FewShot::kFirst:
        return first_of_subject(line);
      case Task::FewShot::kRandom:
        check(data_.lines.size() >= count_, count_);
        return random_.sample(data_.lines.size(), count_);
      case Task::FewShot::kRandomOthers:
        break;
    }
    check(data_.lines.size() > count_, count_ + 1);
    return others(line);
  }

 private:
  void check(bool enough, size_t wanted) const {
    if (enough) return;
    fail(ErrorCode::kUsage, "{}: {} lines of examples, {} are needed for {} of them before each question", data_.where,
         data_.lines.size(), wanted, count_);
  }

  // One more than is wanted is drawn, and the question itself left out.
  std::vector<size_t> others(const Json& line) {
    const auto without = [&](const std::vector<size_t>& drawn) {
      std::vector<size_t> kept;
      for (const size_t i : drawn) {
        if (data_.lines[i] != line && kept.size() < count_) kept.push_back(i);
      }
      return kept;
    };
    std::vector<size_t> kept = without(random_.sample(data_.lines.size(), count_ + 1));
    if (kept.size() == count_) return kept;
    std::vector<size_t> pool;  // the question is there more than once
    for (size_t i = 0; i < data_.lines.size(); ++i) {
      if (data_.lines[i] != line) pool.push_back(i);
    }
    check(pool.size() >= count_, count_ + 1);
    kept.clear();
    for (const size_t i : random_.sample(pool.size(), count_)) kept.push_back(pool[i]);
    return kept;
  }

  std::vector<size_t> first_of_subject(const Json& line) const {
    const Json subject = line.value("subject", Json());
    std::vector<size_t> found;
    for (size_t i = 0; i < data_.lines.size() && found.size() < count_; ++i) {
      if (data_.lines[i].value("subject", Json()) == subject) found.push_back(i);
    }
    if (found.size() < count_) {
      fail(ErrorCode::kUsage, "{}: {} examples of subject {}, {} are needed", data_.where, found.size(), subject.dump(),
           count_);
    }
    return found;
  }

  const Task& task_;
  const TaskLines& data_;
  size_t count_;
  PythonRandom random_{kFewShotSeed};
};

}  // namespace

const Task& find_task(std::string_view name) {
  std::string known;
  for (const Task& task : tasks()) {
    if (task.name == name) return task;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", task.name);
  }
  fail(ErrorCode::kUsage, "task \"{}\": octet has {}", name, known);
}

TaskLines read_task_data(const std::string& path) {
  TaskLines data{.lines = {}, .where = path};
  const std::string text = read_file(path, kMaxDataBytes);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    const std::string where = place(data, data.lines.size());
    Json json;
    try {
      json = parse_json(line, where);
    } catch (const Error& error) {
      fail(ErrorCode::kInvalid, "{}", error.what());
    }
    if (!json.is_object()) fail(ErrorCode::kInvalid, "{}: expected a JSON object", where);
    data.lines.push_back(std::move(json));
  }
  if (data.lines.empty()) fail(ErrorCode::kInvalid, "{}: the file is empty", path);
  return data;
}

std::vector<TaskQuestion> make_questions(const Task& task, const TaskLines& data, const TaskLines& examples,
                                         int num_fewshot, int64_t limit) {
  if (num_fewshot > 0 && task.answer == nullptr)
    fail(ErrorCode::kUsage, "task {} has its examples in its prompt; it takes no others", task.name);
  Examples chosen(task, examples, num_fewshot);
  std::vector<TaskQuestion> questions;
  const size_t count = limit > 0 ? std::min<size_t>(static_cast<size_t>(limit), data.lines.size()) : data.lines.size();
  for (size_t i = 0; i < count; ++i) {
    const JsonObject line(data.lines[i], place(data, i));
    std::string before = task.description == nullptr ? "" : task.description(line);
    for (const size_t example : chosen.choose(data.lines[i])) {
      const JsonObject shown(examples.lines[example], place(examples, example));
      before += task.question(shown) + " " + task.answer(shown) + "\n\n";
    }
    TaskQuestion question;
    task.fill(line, question);
    if (task.own_contexts != nullptr) {
      for (const std::string& context : task.own_contexts(line)) question.contexts.push_back(before + context);
    } else {
      question.contexts.assign(question.continuations.size(), before + task.question(line));
    }
    OCTET_CHECK(question.contexts.size() == question.continuations.size());
    questions.push_back(std::move(question));
  }
  return questions;
}

}  // namespace octet
